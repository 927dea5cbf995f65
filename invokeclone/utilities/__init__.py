"""Utilities for writing prompts: dynamic prompts, suggestions of language models, the user's fonts."""
