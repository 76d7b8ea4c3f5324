"""Rows measured in turn: a subject, its peers and a reference, each in a process of its own, one working at a time.

A machine drifts. What is compared takes turns within one round, so that a ratio is taken between neighbours in time;
the median over rounds is what is reported.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from harness import machine
from harness.bench import peers as others
from harness.bench.measure import median, serve
from harness.bench.plan import Plan
from harness.bench.subject import Subject
from harness.errors import UserError
from harness.processes import launch
from harness.training.reference import ratio
from zoo import architectures
from zoo.types import ROLES, Role

Row = dict[str, Any]


class _Ended(Exception):
    """A subject could not be measured: `status` and why."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(eq=False)
class _Seat:
    """A subject's process, and what it has measured so far."""

    subject: Subject
    process: Any
    pipe: Any
    facts: dict[str, Any] = field(default_factory=dict)
    train: list[list[float]] = field(default_factory=list)

    def ask(self, *request: Any) -> Any:
        """The process's answer to a request; to none, what it sends first."""
        try:
            if request:
                self.pipe.send((request[0], request[1:]))
            status, answer = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            killed = self.process.exitcode == -9
            raise _Ended(
                "oom" if killed else "failed",
                "the process was killed, most likely because memory ran out" if killed else "the process ended",
            ) from None
        if status != "ok":
            raise _Ended(status, answer)
        return answer

    def leave(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join(10)
        self.pipe.close()


@contextmanager
def _seated(threads: int | None) -> Iterator[Callable[[Subject], _Seat]]:
    """A function that gives a subject a process; they all end with the block."""
    seats: list[_Seat] = []

    def seat(subject: Subject) -> _Seat:
        seats.append(_Seat(subject, *launch(serve, subject, threads, duplex=True)))
        seats[-1].facts = seats[-1].ask()
        return seats[-1]

    try:
        yield seat
    finally:
        for taken in seats:
            taken.leave()


def bench(
    names: Sequence[str],
    plan: Plan,
    *,
    tell: Callable[[str], None] = lambda text: None,
    keep: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Measure every architecture at every length. `keep` is called with all rows so far after each of them.

    Raises:
        UserError: an unknown name or option, or a peer that was asked for is not installed.
    """
    subjects = [
        dataclasses.replace(_subject(name, plan), length=length, batch=batch)
        for name in dict.fromkeys(names)
        for length, batch in plan.lengths
    ]
    rows: list[Row] = []
    for number, subject in enumerate(subjects, 1):
        at = f"{subject.name} {subject.length}x{subject.batch} ({number} of {len(subjects)})"
        rows.append(_row(subject, plan, partial(_say, tell, at)))
        keep(_with_slopes(rows))
    return _with_slopes(rows)


def _say(tell: Callable[[str], None], at: str, text: str) -> None:
    tell(f"{at}: {text}")


def _subject(name: str, plan: Plan) -> Subject:
    """The subject of a name, told what its peers need to be the same model.

    Raises:
        UserError: see `bench`.
    """
    try:
        architectures.recipe(name, **plan.options)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(str(error.args[0])) from error
    role, options = plan.role or _role(name, plan), dict(plan.options)
    if plan.peers:
        for peer in _peers(name, role):
            options = {**others.PEERS[peer].options, **options}
    return Subject(
        name,
        length=plan.lengths[0][0],
        batch=plan.lengths[0][1],
        precision=machine.resolve_precision(plan.precision, machine.pick()),
        role=role,
        width=plan.width,
        depth=plan.depth,
        options=options,
        plugins=plan.plugins,
    )


def _role(name: str, plan: Plan) -> Role:
    """The role of its peers if they are asked for; else the first that it can play, a language model before others."""
    if plan.peers:
        roles = [peer.role for peer in others.PEERS.values() if name in peer.implements]
        if roles:
            return "lm" if "lm" in roles else roles[0]
    from harness.listing import find

    playable = find(name)["roles"]
    return next(role for role in ("lm", "classify", *ROLES) if role in playable)


def _peers(name: str, role: Role) -> list[str]:
    return [peer for peer, about in others.PEERS.items() if name in about.implements and about.role == role]


def _row(subject: Subject, plan: Plan, tell: Callable[[str], None]) -> Row:
    """One row: the subject's own process first, then peers and reference, then the rounds."""
    row: Row = {
        "architecture": subject.name,
        "role": subject.role,
        "length": subject.length,
        "batch": subject.batch,
        "precision": subject.precision,
        "width": subject.width,
        "hardware": machine.hardware(machine.pick().type),
        "options": subject.options,
        "status": "ok",
        "reason": None,
        **dict.fromkeys(MEASURED),
    }
    tell("building")
    with _seated(plan.threads) as seat:
        try:
            ours = seat(subject)
            reference = _reference(subject, plan, seat)
            peers, problems = _seat_peers(ours, plan, seat, tell)
            row |= ours.facts | _rounds(ours, reference, peers, plan, tell)
            if plan.peers:
                row |= _against(ours, peers, problems)
        except _Ended as end:
            row |= {"status": end.status, "reason": str(end)}
    return row


MEASURED = (
    "params",
    "train_tokens_per_s",
    "train_spread",
    "prefill_tokens_per_s",
    "decode_ms_per_token",
    "decode_ms_by_context",
    "peak_memory_bytes",
    "state_bytes",
    "flops_per_step",
    "matmul_flops",
    "fraction_of_peak",
    "reference",
    "relative_speed",
    "time_slope",
    "memory_slope",
    "kernels",
    "threads",
)
"""What a row measures, null where it could not."""


def _reference(subject: Subject, plan: Plan, seat: Callable[[Subject], _Seat]) -> _Seat | None:
    if plan.reference is None or plan.reference == subject.name:
        return None
    return seat(dataclasses.replace(subject, name=plan.reference, depth=plan.depth, options={}))


def _seat_peers(
    ours: _Seat, plan: Plan, seat: Callable[[Subject], _Seat], tell: Callable[[str], None]
) -> tuple[list[_Seat], dict[str, str]]:
    """The peers that could be built, and why others could not."""
    seats, problems = [], dict[str, str]()
    for peer in _peers(ours.subject.name, ours.subject.role) if plan.peers else []:
        tell(f"building {peer}")
        package = others.PEERS[peer].package
        if others.PEERS[peer].installed is None:
            problems[peer] = f"{package} is not installed; pip install 'zoobench[oracles]'"
            continue
        try:
            theirs = {"peer": peer, "precision": "fp32", "options": {}, "params": ours.facts["params"]}
            seats.append(seat(dataclasses.replace(ours.subject, **theirs)))
        except _Ended as end:
            problems[peer] = str(end)
    return seats, problems


def _rounds(ours: _Seat, reference: _Seat | None, peers: list[_Seat], plan: Plan, tell: Callable[[str], None]) -> Row:
    """Every measurement, `plan.repeats` times over, those that are compared next to each other."""
    subject = ours.subject
    contexts = sorted({subject.length, *plan.contexts})
    peaks: list[float] = []
    prefill: list[list[float]] = []
    decode: dict[int, list[list[float]]] = {context: [] for context in contexts}
    for round_ in range(1, plan.repeats + 1):
        tell(f"round {round_} of {plan.repeats}")
        for seat in (ours, *peers, *([reference] if reference else [])):
            seat.train.append(seat.ask("train", plan.seconds))
        peaks.append(ours.ask("matmul"))
        prefill.append(ours.ask("prefill", plan.seconds / 2))
        for context in contexts:
            turn = ours.ask("decode", context)
            if turn is not None:
                decode[context].append(turn)
    milliseconds = {str(context): 1e3 * median(turns) for context, turns in decode.items() if turns}
    step, peak = median(ours.train), statistics.median(peaks)
    return {
        "train_tokens_per_s": subject.tokens / step,
        "train_spread": _spread(ours.train),
        "prefill_tokens_per_s": subject.tokens / median(prefill),
        "decode_ms_per_token": milliseconds.get(str(subject.length)),
        "decode_ms_by_context": milliseconds or None,
        "matmul_flops": peak,
        "fraction_of_peak": ours.facts["flops_per_step"] / step / peak,
        "reference": reference.subject.name if reference else None,
        "relative_speed": _ratio(ours, reference) if reference else None,
    }


def _spread(turns: list[list[float]]) -> float:
    """Half the range of the turns' medians over their median."""
    middles = [statistics.median(turn) for turn in turns]
    return (max(middles) - min(middles)) / 2 / statistics.median(middles)


def _ratio(ours: _Seat, theirs: _Seat) -> float:
    """How many times as fast ours trains."""
    return ratio(ours.train, theirs.train)


def _against(ours: _Seat, peers: list[_Seat], problems: dict[str, str]) -> Row:
    """The fastest peer of the same size, and all of them."""
    every: list[Row] = []
    for seat in peers:
        mismatch = seat.facts["params"] / ours.facts["params"] - 1
        every.append(
            {
                "peer": seat.subject.peer,
                "version": others.PEERS[seat.subject.peer or ""].installed,
                "peer_precision": seat.subject.precision,
                "peer_params": seat.facts["params"],
                "params_mismatch": mismatch,
                "peer_train_tokens_per_s": seat.subject.tokens / median(seat.train),
                "peer_peak_memory_bytes": seat.facts["peak_memory_bytes"],
                "ratio": _ratio(ours, seat),
                "memory_ratio": ours.facts["peak_memory_bytes"] / seat.facts["peak_memory_bytes"],
                "comparable": abs(mismatch) <= others.TOLERANCE,
            }
        )
    fastest = min((row for row in every if row["comparable"]), key=lambda row: row["ratio"], default=None)
    keys = ("peer", "peer_train_tokens_per_s", "ratio", "peer_params", "peer_peak_memory_bytes", "memory_ratio")
    best = {key: fastest[key] if fastest else None for key in keys}
    return {**best, "peers": every, "peers_missing": problems}


def _with_slopes(rows: list[Row]) -> list[Row]:
    """Each row with its architecture's log-log slopes over length: of seconds and of activation bytes a sequence."""
    found = []
    for row in rows:
        same = [r for r in rows if r["architecture"] == row["architecture"] and r["status"] == "ok"]
        slopes: Row = {"time_slope": None, "memory_slope": None}
        if row["status"] == "ok" and len({r["length"] for r in same}) > 1:
            lengths = [r["length"] for r in same]
            slopes = {
                "time_slope": slope(lengths, [r["length"] / r["train_tokens_per_s"] for r in same]),
                "memory_slope": slope(lengths, [_activations(r) for r in same]),
            }
        found.append(row | slopes)
    return found


def _activations(row: Row) -> float:
    """Bytes of a sequence beside weights, gradients and AdamW's two moments, which do not grow with it."""
    return max(row["peak_memory_bytes"] - 16 * row["params"], 1) / row["batch"]


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the least-squares line through (log x, log y): 1 where y grows as x, 2 where as its square."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if all(v > 0 for v in y) else math.nan
