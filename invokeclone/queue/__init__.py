"""Batches and the items they become: enqueue, claim, finish, cancel, retry, count."""
