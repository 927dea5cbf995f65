"""Third-party node packs: installed into a folder, imported by workers only, described to the server by schemas."""
