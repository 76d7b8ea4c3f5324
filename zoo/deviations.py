"""How many architectures differ from the official models alike, in one wording."""

INITIAL_WEIGHTS = (
    "weights start at N(0, 1/fan_in), not N(0, 0.02), the projection to the residual at 1/√(2·depth) of it"
)
SWIGLU_WIDTH = "the SwiGLU is 8/3 times as wide, not rounded up to a multiple of 256"
TORCH_CONVOLUTIONS = (
    "convolutions keep PyTorch's initial values, as in the official layer alone; the official model has N(0, 0.02)"
)
