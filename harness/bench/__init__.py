"""How fast, how large: architectures measured in turn with a reference and with other people's implementations."""

from harness.bench.plan import Plan, plan
from harness.bench.session import bench

__all__ = ["Plan", "bench", "plan"]
