"""Diagonal linear recurrence h_t = a_t h_{t-1} + b_t: S5, LRU, RG-LRU, minGRU, Mamba and RWKV-4 are made of it."""

from zoo.ops.diagonal_scan.chunked import scan
from zoo.ops.diagonal_scan.naive import scan as scan_naive
from zoo.ops.diagonal_scan.naive import step

__all__ = ["scan", "scan_naive", "step"]
