"""Recall and copying: what stood in the context must be found again."""

from tasks.recall import associative_recall, induction, mad, mad_recall, mqar, phonebook, selective_copy

__all__ = ["associative_recall", "induction", "mad", "mad_recall", "mqar", "phonebook", "selective_copy"]
