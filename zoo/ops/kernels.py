"""Which form of each primitive ran last, by name: a record keeps it, so that speeds can be traced to code."""

used: dict[str, str] = {}


def ran(op: str, form: str) -> None:
    """Note that `op` was computed by `form`."""
    used[op] = form
