"""Mixers: one file per family, no norm and no residual inside. `MIXERS` maps the name used in a Recipe to its class."""

from __future__ import annotations

from zoo.lookup import Table

MIXERS = Table(
    "mixer",
    {
        "attention": "zoo.mixers.attention:Attention",
        "linformer": "zoo.mixers.linformer:Linformer",
        "lstm": "zoo.mixers.lstm:LSTM",
        "performer": "zoo.mixers.performer:Performer",
        "rwkv4": "zoo.mixers.rwkv4:TimeMix",
        "s4d": "zoo.mixers.s4d:S4D",
        "token_mlp": "zoo.mixers.token_mlp:TokenMLP",
    },
)
