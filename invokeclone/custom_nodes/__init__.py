"""Node packs of other authors: installed into a folder, imported by workers only, known to the server by their schemas."""
