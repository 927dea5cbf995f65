"""Installation of models: sources, downloads, registration, and folder scans."""
