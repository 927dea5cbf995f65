"""Accounts, sign-in, API keys, the current user, and what a user may see and change (`rights.py`)."""
