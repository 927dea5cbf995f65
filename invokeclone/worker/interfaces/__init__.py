"""The worker's implementation of the InvocationContext's interfaces."""
