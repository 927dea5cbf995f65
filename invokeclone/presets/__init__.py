"""Style presets, which are templates that a prompt is put into, and system prompts for language models."""
