"""Images: records, files, thumbnails, embedded metadata, upload and lists."""
