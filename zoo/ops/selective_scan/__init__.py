"""The selective state space of Mamba: a diagonal recurrence whose step size, input and output depend on the input."""

from zoo.ops.selective_scan.chunked import gated_selective_scan, selective_scan
from zoo.ops.selective_scan.naive import gated_selective_scan as gated_selective_scan_naive
from zoo.ops.selective_scan.naive import selective_scan as selective_scan_naive
from zoo.ops.selective_scan.naive import step

__all__ = ["gated_selective_scan", "gated_selective_scan_naive", "selective_scan", "selective_scan_naive", "step"]
