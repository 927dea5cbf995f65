"""Utilities without domain knowledge: settings, database, errors, events, paging, storage, logging."""
