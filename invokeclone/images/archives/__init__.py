"""Zip files of images."""
