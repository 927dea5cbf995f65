"""Style presets (prompt templates) and system prompts for language models."""
