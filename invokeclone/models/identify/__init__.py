"""Identification of model files and folders: the rules of all families and the signatures that they share."""
