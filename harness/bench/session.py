"""Rows measured in rounds: an architecture, its peers and a reference, one of them working at a time.

A machine drifts. What is compared takes turns within one round, so that a ratio is taken between neighbours in time;
the median over rounds is what is reported.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from harness import machine
from harness.bench.peers import PEERS, TOLERANCE, peers_of
from harness.bench.settings import Settings
from harness.bench.subject import Subject
from harness.bench.worker import MeasurementFailed, Worker, median, worker_pool
from harness.errors import UserError
from harness.training.reference import ratio
from zoo import architectures
from zoo.size import sketch_roles
from zoo.types import Role

Row = dict[str, Any]
Report = Callable[[str], None]
Start = Callable[[Subject], Worker]
MEASURED = (
    *("params", "train_tokens_per_s", "train_spread", "prefill_tokens_per_s", "decode_ms_per_token"),
    *("decode_ms_by_context", "peak_memory_bytes", "state_bytes", "flops_per_step", "matmul_flops"),
    *("fraction_of_peak", "reference", "relative_speed", "time_slope", "memory_slope", "kernels", "threads"),
)
"""What a row measures, null where it could not."""


def bench(
    names: Sequence[str],
    settings: Settings,
    *,
    on_progress: Report = lambda text: None,
    on_row: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Measure every architecture at every length. `on_row` is called with all rows so far after each of them.

    Raises:
        UserError: an unknown name or option.
    """
    subjects = [subject for name in dict.fromkeys(names) for subject in _subjects(name, settings)]
    rows: list[Row] = []
    for number, subject in enumerate(subjects, 1):
        title = f"{subject.name} {subject.length}x{subject.batch} ({number} of {len(subjects)})"

        def report(text: str, title: str = title) -> None:
            on_progress(f"{title}: {text}")

        rows.append(_row(subject, settings, report))
        on_row(_with_slopes(rows))
    return _with_slopes(rows)


def _subjects(name: str, settings: Settings) -> list[Subject]:
    """An architecture at every length, with the options that its peers need to be the same model."""
    try:
        architectures.recipe(name, **settings.options)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(str(error.args[0])) from error
    role, options = settings.role or _role(name, settings.peers), settings.options
    for peer in peers_of(name, role).values() if settings.peers else ():
        options = {**peer.options, **options}
    precision = machine.resolve_precision(settings.precision, machine.pick())
    shared: dict[str, Any] = {"width": settings.width, "depth": settings.depth, "plugins": settings.plugins}
    return [Subject(name, *size, precision, role, options=options, **shared) for size in settings.lengths]


def _role(name: str, peers: bool) -> Role:
    """The role of its peers where they are measured too; else one that it can play, a language model before others."""
    playable = [peer.role for peer in PEERS.values() if name in peer.implements] if peers else []
    return min(playable or sketch_roles(name), key=lambda role: ("lm", "classify", role).index(role))


def _row(subject: Subject, settings: Settings, report: Report) -> Row:
    """One row: the subject's own process first, then reference and peers, then the rounds."""
    row: Row = {
        "architecture": subject.name,
        **{key: getattr(subject, key) for key in ("role", "length", "batch", "precision", "width", "options")},
        "hardware": machine.hardware(machine.pick().type),
        "status": "ok",
        "reason": None,
        **dict.fromkeys(MEASURED),
    }
    report("building")
    with worker_pool(settings.threads) as start:
        try:
            ours = start(subject)
            reference = None
            if settings.reference not in (None, subject.name):
                reference = start(dataclasses.replace(subject, name=settings.reference, options={}))
            peers, problems = _start_peers(ours, start, report) if settings.peers else ([], {})
            row |= ours.facts | _measure(ours, reference, peers, settings, report)
            if settings.peers:
                row |= _compare(ours, peers, problems)
        except MeasurementFailed as error:
            row["status"], row["reason"] = error.args
    return row


def _start_peers(ours: Worker, start: Start, report: Report) -> tuple[list[Worker], dict[str, str]]:
    """The peers that could be built, and why others could not."""
    workers, problems = [], dict[str, str]()
    for name, peer in peers_of(ours.subject.name, ours.subject.role).items():
        report(f"building {name}")
        if peer.installed is None:
            how = "docs/speed.md says how" if peer.gpu else "pip install 'zoobench[oracles]'"
            problems[name] = f"{peer.package} is not installed; {how}"
            continue
        precision = ours.subject.precision if peer.gpu else "fp32"
        theirs = {"peer": name, "precision": precision, "options": {}, "params": ours.facts["params"]}
        try:
            workers.append(start(dataclasses.replace(ours.subject, **theirs)))
        except MeasurementFailed as error:
            problems[name] = error.args[1]
    return workers, problems


def _measure(ours: Worker, reference: Worker | None, peers: list[Worker], settings: Settings, report: Report) -> Row:
    """Every measurement in every round, those that are compared next to each other."""
    subject = ours.subject
    contexts = sorted({subject.length, *settings.contexts})
    peaks: list[float] = []
    prefill: list[list[float]] = []
    decode: dict[int, list[list[float]]] = {context: [] for context in contexts}
    for number in range(1, settings.repeats + 1):
        report(f"round {number} of {settings.repeats}")
        for worker in (ours, *peers, *([reference] if reference else [])):
            worker.turns.append(worker.ask("train", settings.seconds))
        peaks.append(ours.ask("matmul"))
        prefill.append(ours.ask("prefill", settings.seconds / 2))
        for context in contexts:
            turn = ours.ask("decode", context)
            if turn is not None:
                decode[context].append(turn)
    milliseconds = {str(context): 1e3 * median(turns) for context, turns in decode.items() if turns}
    step, peak = median(ours.turns), statistics.median(peaks)
    return {
        "train_tokens_per_s": subject.tokens / step,
        "train_spread": _spread(ours.turns),
        "prefill_tokens_per_s": subject.tokens / median(prefill),
        "decode_ms_per_token": milliseconds.get(str(subject.length)),
        "decode_ms_by_context": milliseconds or None,
        "matmul_flops": peak,
        "fraction_of_peak": ours.facts["flops_per_step"] / step / peak,
        "reference": reference.subject.name if reference else None,
        "relative_speed": ratio(ours.turns, reference.turns) if reference else None,
    }


def _spread(turns: list[list[float]]) -> float:
    """Half the range of the turns' medians over their median."""
    medians = [statistics.median(turn) for turn in turns]
    return (max(medians) - min(medians)) / 2 / statistics.median(medians)


def _compare(ours: Worker, peers: list[Worker], problems: dict[str, str]) -> Row:
    """All peers, and the fastest of the same size."""
    rows = [_peer_row(ours, worker) for worker in peers]
    fastest = min((row for row in rows if row["comparable"]), key=lambda row: row["ratio"], default=Row())
    keys = ("peer", "peer_train_tokens_per_s", "ratio", "peer_params", "peer_peak_memory_bytes", "memory_ratio")
    return {**{key: fastest.get(key) for key in keys}, "peers": rows, "peers_missing": problems}


def _peer_row(ours: Worker, worker: Worker) -> Row:
    name, facts = worker.subject.peer or "", worker.facts
    mismatch = facts["params"] / ours.facts["params"] - 1
    return {
        "peer": name,
        "version": PEERS[name].installed,
        "peer_precision": worker.subject.precision,
        "peer_params": facts["params"],
        "params_mismatch": mismatch,
        "peer_train_tokens_per_s": worker.subject.tokens / median(worker.turns),
        "peer_peak_memory_bytes": facts["peak_memory_bytes"],
        "ratio": ratio(ours.turns, worker.turns),
        "memory_ratio": ours.facts["peak_memory_bytes"] / facts["peak_memory_bytes"],
        "comparable": abs(mismatch) <= TOLERANCE,
    }


def _with_slopes(rows: list[Row]) -> list[Row]:
    """Each row with its architecture's log-log slopes over length: of seconds and of activation bytes a sequence."""
    found = []
    for row in rows:
        same = [r for r in rows if r["architecture"] == row["architecture"] and r["status"] == "ok"]
        lengths = [r["length"] for r in same]
        slopes: Row = {"time_slope": None, "memory_slope": None}
        if row["status"] == "ok" and len({*lengths}) > 1:
            # without weights, gradients and AdamW's two moments, which do not grow with the length
            activations = [max(r["peak_memory_bytes"] - 16 * r["params"], 1) / r["batch"] for r in same]
            seconds = [r["length"] / r["train_tokens_per_s"] for r in same]
            slopes = {"time_slope": slope(lengths, seconds), "memory_slope": slope(lengths, activations)}
        found.append(row | slopes)
    return found


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the least-squares line through (log x, log y): 1 where y grows as x, 2 where as its square."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if all(v > 0 for v in y) else math.nan
