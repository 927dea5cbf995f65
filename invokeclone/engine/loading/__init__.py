"""Loading of models: files, folders, conversion, the registry of loaders."""
