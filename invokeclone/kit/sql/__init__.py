"""The database: opening, migrating, reading, writing transactions, prepared statements."""
