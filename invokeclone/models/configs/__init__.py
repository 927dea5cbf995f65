"""The vocabulary of model records: fields, kinds, variants and default settings, of which families make record classes."""
