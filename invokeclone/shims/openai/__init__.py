"""OpenAI's Images API as its SDK, Open WebUI and LibreChat use it, also under Azure's paths."""
