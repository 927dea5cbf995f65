"""The interfaces of the InvocationContext."""
