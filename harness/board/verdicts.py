"""Verdicts: one sentence a table, who leads and who ties with it."""

from collections.abc import Sequence

from harness.board.model import Aggregate, Board, TaskBoard

MOST = 4
"""Rows that tie are named up to this many."""


def sentences(board: Board) -> list[str]:
    """A sentence for each task and track, and one for each track over its tasks."""
    return [*map(_task, board.tasks), *(_across(found) for found in board.across if found.rows)]


def _task(board: TaskBoard) -> str:
    """`text: rwkv4 leads (2.634 bits/byte), separated from all others`; rows tie that are not separated from it."""
    if not board.ranked:
        return f"{board.title}: nothing could be ranked"
    leader, *others = board.ranked
    first = [leader, *(row for row in others if not leader.separated_from(row))]
    names, means = [row.architecture for row in first], [f"{row.mean:.3f}" for row in first]
    listed, scores = _listed(names), _listed(means)
    if len(first) > MOST:
        listed, scores = (
            f"{', '.join(names[: MOST - 1])} and {len(names) - MOST + 1} others",
            f"{means[0]} to {means[-1]}",
        )
    scores = f"{scores} {board.unit}" if board.unit else f"{board.metric} {scores}"
    if not others:
        said = f"{leader.architecture} is the only ranked row ({scores})"
    elif len(first) == 1:
        said = f"{leader.architecture} leads ({scores}), separated from all others"
    else:
        said = f"{listed} tie for first ({scores})"
        said += f"; {leader.architecture} is separated from the rest" if len(first) <= len(others) else ""
    better = [line.name for line in board.lines if board.cost(line.value) < board.cost(leader.mean or 0.0)]
    return f"{board.title}: {said}" + (f"; no row reaches {' or '.join(better)}" if better else "")


def _across(found: Aggregate) -> str:
    """`over 3 tasks: rwkv4 leads (IQM 1.238); no difference of mean ranks is shown`."""
    leader, track = found.rows[0], f" ({found.track})" if found.track else ""
    score = f"mean rank {leader.rank:.2f}" if leader.iqm is None else f"IQM {leader.iqm:.3f}"
    said = f"over {len(found.tasks)} tasks{track}: {leader.architecture} leads ({score})"
    if found.ranking is None:
        return said
    near = {name for group in found.ranking.groups if leader.architecture in group for name in group}
    ties = [row.architecture for row in found.rows[1:] if row.architecture in near]
    if len(ties) == len(found.rows) - 1:
        return f"{said}; no difference of mean ranks is shown"
    return f"{said}; by mean rank it is separated from all others" + (f" but {_listed(ties)}" if ties else "")


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
