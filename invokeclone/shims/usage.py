"""Counts of tokens for dialects that tell them: rough estimates, as there is no bill."""

LETTERS = 4
"""Characters that count as a token of text, as OpenAI and Google count roughly."""
PATCH = 16
"""Side in pixels of the square that counts as a token of a picture."""


def of_text(text: str) -> int:
    """Return the tokens of a text."""
    return -(-len(text) // LETTERS)


def of_picture(width: int, height: int) -> int:
    """Return the tokens of a picture of this size in pixels."""
    return -(-width // PATCH) * -(-height // PATCH)
