"""The causal convolution with a few taps per channel, however long the sequence."""

from zoo.ops.short_convolution.direct import short_convolution
from zoo.ops.short_convolution.naive import Unit
from zoo.ops.short_convolution.naive import short_convolution as short_convolution_naive

__all__ = ["Unit", "short_convolution", "short_convolution_naive"]
