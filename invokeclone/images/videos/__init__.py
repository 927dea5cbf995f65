"""Videos: upload, decoding and routes; records, access rights and lists are shared with images."""
