"""LoRA and related adapters: reading files of any layout, and applying and removing them exactly."""
