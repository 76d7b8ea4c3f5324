"""Where downloads and what is made of them are kept, and whether the network may be used."""

import os
from pathlib import Path

OFFLINE = ("ZOOBENCH_OFFLINE", "HF_HUB_OFFLINE")
"""Environment variables, either of which forbids every use of the network when set to anything but 0, no or false."""


def home() -> Path:
    """`$ZOOBENCH_HOME`, or else `~/.cache/zoobench`. It may not exist yet."""
    return Path(os.environ.get("ZOOBENCH_HOME") or "~/.cache/zoobench").expanduser().absolute()


def offline() -> str | None:
    """The environment variable that forbids the network, if one does."""
    on = (name for name in OFFLINE if os.environ.get(name, "").lower() not in ("", "0", "no", "off", "false"))
    return next(on, None)
