"""What a worker process needs from the server's database and files, behind one protocol: locally, or through a link."""
