"""Long Range Arena (Tay et al. 2020, arXiv:2011.04006): long sequences to classify or to match."""

from tasks.long_range import imdb, listops, retrieval

__all__ = ["imdb", "listops", "retrieval"]
