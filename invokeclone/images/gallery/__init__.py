"""The gallery: lists of images and videos together."""
