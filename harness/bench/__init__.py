"""Speed and memory of architectures, measured in turn with a reference and with other people's implementations."""

from harness.bench.session import bench
from harness.bench.settings import Settings, parse_settings

__all__ = ["Settings", "bench", "parse_settings"]
