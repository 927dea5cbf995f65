"""Files that clients name: uploaded images and each user's data.

All are rows of the database, so that no name of a client reaches the file system.
"""
