"""The version of this package; the wire reports the InvokeAI version it speaks (see server/info)."""

__version__ = "0.1.0"

API_VERSION = "6.14.2"
"""The InvokeAI version the wire speaks; images carry it in their metadata."""
