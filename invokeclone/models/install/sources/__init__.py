"""Sources of models on the web: repositories, their metadata, which of their files to fetch."""
