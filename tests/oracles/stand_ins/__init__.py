"""How record_fla.py runs layers of flash-linear-attention in float64."""
