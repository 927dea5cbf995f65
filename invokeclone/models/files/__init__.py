"""Readers of model files: headers, hashes and sidecar files, without torch and without executing code."""
