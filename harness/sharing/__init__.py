"""How several people publish one board: bundles of runs, their review, and what is merged of them.

Nothing that a bundle holds is ever imported or run. What is run again are the reviewer's own suite and plug-ins.
"""
