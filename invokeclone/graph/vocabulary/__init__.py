"""Vocabulary of nodes: fields, model taxonomy, architectures, hints for editors."""
