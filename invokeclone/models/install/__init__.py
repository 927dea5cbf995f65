"""Installing models: sources, downloads, registration, and scans of folders."""
