"""Images as bytes: decoding uploads, PNG, embedded texts, images of records."""
