"""What stands around the layers: residual types, the stack of blocks, the wrapper for both directions, the heads."""
