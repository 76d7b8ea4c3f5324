"""State and rules: formal languages and word problems, for which a state must be tracked step by step."""

from tasks.state import chomsky, word_problem

__all__ = ["chomsky", "word_problem"]
