"""Storage of files that outlive processes, by key: a local folder, or a bucket of an S3 service."""
