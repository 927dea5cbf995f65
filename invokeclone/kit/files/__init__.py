"""Files: atomic writes, paths, files named by users, image files, the lock on the root."""
