"""Figures of architectures, drawn from the built module and the graph that runs.

trace.py    one forward pass, recorded as a graph of `torch.fx`
collapse.py that pass from near or far: operations, layers, blocks
graph.py    the graph of a figure
compare.py  what differs between two graphs
layout.py   where boxes and arrows go
svg.py      the figure as SVG
figure.py   from names of architectures to a figure
"""

from zoo.figures.figure import draw

__all__ = ["draw"]
