"""The version of this package, and the InvokeAI version that it speaks."""

__version__ = "0.2.0.dev0"

API_VERSION = "6.14.2"
"""The InvokeAI version the wire speaks; images carry it in their metadata."""
