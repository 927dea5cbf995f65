"""Webhooks: URLs that are notified when batches and items end, signed, retried and at least once."""
