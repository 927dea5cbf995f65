"""LoRA and its relatives: small changes to another model's layers, read from files of any layout, applied and removed exactly."""
