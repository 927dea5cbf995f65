"""Videos: what they have that images do not; records, rights and lists are those of images, by kind."""
