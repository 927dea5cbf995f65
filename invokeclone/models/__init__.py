"""Models: file formats (`files`), record classes (`configs`), identification, records and installation."""
