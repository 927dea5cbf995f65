"""The Images API of OpenAI, as its SDK, Open WebUI and LibreChat speak it; Azure's addresses too."""
