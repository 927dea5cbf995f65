"""The version of this package, and the InvokeAI version of its API."""

__version__ = "0.2.0.dev0"

API_VERSION = "6.14.2"
"""The InvokeAI version of the API; images carry it in their metadata."""
