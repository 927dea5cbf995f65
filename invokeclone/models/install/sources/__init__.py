"""Remote model sources: repositories, their metadata, and the selection of files to download."""
