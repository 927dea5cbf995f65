"""The queue: batches and their items, which are enqueued, claimed, finished, canceled, retried and counted."""
