"""Counts of tokens for dialects that tell them: rough estimates, as there is no bill."""

CHARACTERS_PER_TOKEN = 4
"""Characters that count as a token of text, as OpenAI and Google count roughly."""
PATCH_SIDE = 16
"""Side in pixels of the square that counts as a token of a picture."""


def text_tokens(text: str) -> int:
    """Return the tokens of a text."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def image_tokens(width: int, height: int) -> int:
    """Return the tokens of a picture of this size in pixels."""
    return -(-width // PATCH_SIDE) * -(-height // PATCH_SIDE)
