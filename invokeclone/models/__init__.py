"""Models: their records, identification of files, installation, pictures, orphaned files, starter list."""
