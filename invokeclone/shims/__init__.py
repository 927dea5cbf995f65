"""Compatibility APIs of other servers over the same queue, a folder each."""
