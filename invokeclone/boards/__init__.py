"""Boards: collections of images, their counts and covers, and which image is on which."""
