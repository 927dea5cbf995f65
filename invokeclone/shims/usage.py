"""Estimated token counts for compatibility APIs that report usage; nothing is billed by them."""

CHARACTERS_PER_TOKEN = 4
"""Characters per token of text, the rule of thumb of OpenAI and Google."""
PATCH_SIDE = 16
"""Side in pixels of the square that counts as a token of an image."""


def text_tokens(text: str) -> int:
    """Return the estimated tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def image_tokens(width: int, height: int) -> int:
    """Return the estimated tokens of an image of this size in pixels."""
    return -(-width // PATCH_SIDE) * -(-height // PATCH_SIDE)
