"""Accounts, tokens, the current user, client state. So far: the one user of single-user mode."""
