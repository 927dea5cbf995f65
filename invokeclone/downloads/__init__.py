"""The download service: queue, transfers, HTTP client and address checks."""
