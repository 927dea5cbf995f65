"""Moving image files to other subfolders."""
