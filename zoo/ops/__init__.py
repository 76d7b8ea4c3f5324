"""Primitives, one folder each: `naive.py` is the truth in a few lines, float64-able; the other files equal it, faster."""
