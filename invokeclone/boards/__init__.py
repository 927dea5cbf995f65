"""Boards: collections of images with counts and covers, and adding and removing images."""
