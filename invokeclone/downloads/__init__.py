"""The download service: files from the web to this machine, in turn, whole or not at all."""
