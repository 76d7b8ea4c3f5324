"""Language modelling: the next byte, character or subword of a text, or the masked ones."""

from tasks.language import text

__all__ = ["text"]
