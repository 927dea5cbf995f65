"""Image encoding: decoding uploads, PNG, embedded texts, thumbnails of other records."""
