"""Primitives, one folder each: `naive.py` is the truth in a few lines, in any precision; the others equal it."""
