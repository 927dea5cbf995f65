"""The version of this package; the wire reports the InvokeAI version it speaks (see server/info)."""

__version__ = "0.1.0"
