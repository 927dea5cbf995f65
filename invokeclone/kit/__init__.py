"""What every room stands on and that knows no domain: settings, database, errors, events, paging, storage, log."""
