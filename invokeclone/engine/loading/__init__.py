"""Loading models: files, folders, conversion, the table of loaders."""
