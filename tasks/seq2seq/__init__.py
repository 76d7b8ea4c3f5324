"""From one sequence to another: pronunciation, sorting, addition, translation."""

from tasks.seq2seq.g2p import G2p
from tasks.seq2seq.pairs import Pairs
from tasks.seq2seq.sequences import Addition, Reverse, Sort

__all__ = ["Addition", "G2p", "Pairs", "Reverse", "Sort"]
