"""Model files as they lie on disk: headers, hashes and sidecar files, read without torch and without running anything."""
