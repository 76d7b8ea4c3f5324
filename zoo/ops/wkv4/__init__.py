"""The WKV operator of RWKV-4: attention whose weights decay exponentially with distance, per channel."""

from zoo.ops.wkv4.naive import init_state
from zoo.ops.wkv4.naive import wkv as wkv_naive
from zoo.ops.wkv4.scan import wkv

__all__ = ["init_state", "wkv", "wkv_naive"]
