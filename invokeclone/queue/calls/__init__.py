"""Calls of saved workflows by running items: starting a call, its sessions, and the items that wait for it."""
