"""Language modelling: the next byte, character or subword of a text, or the masked ones."""

from tasks.language import masked, text

__all__ = ["masked", "text"]
