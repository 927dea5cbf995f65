"""HTTP concerns common to all routes: authentication, origin checks, body parsing, error responses."""
