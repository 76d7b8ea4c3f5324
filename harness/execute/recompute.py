"""What a record implies about data, models, weights and the first steps, made anew and compared."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from harness import machine
from harness.errors import UserError
from harness.execute.rerun import TOLERANCE, compare
from harness.plan.expand import plugin_digest
from harness.plan.sizes import build_model, examples_of, known_size, own_options, step_flops
from harness.plan.wanted import foreign, wanted
from harness.records.checks import CLOSE, Problem, close, stream_by_step
from harness.records.files import read_json
from harness.records.meters import Meters
from harness.records.parts import plain
from harness.records.record import SIZES, Metrics, Record, Scores
from harness.records.spec import RunSpec
from harness.records.store import MODEL, Store, baseline_key
from harness.records.stream_hash import extend_hash
from harness.records.together import Odd
from harness.suite.load import load as load_suite
from harness.suite.load import shipped
from harness.suite.loaded import LoadedSuite
from harness.training.evaluate import evaluate
from harness.training.optimizer import adamw, descend, set_lr
from harness.training.overrides import overrides_of
from harness.training.schedule import schedule
from tasks import parts
from tasks.base import DataError, Split, Task
from zoo import cache
from zoo.contract import Model, Shape
from zoo.published import load
from zoo.size import Size, measure

STEPS = 32
"""Steps that are made anew: of the batches these first ones, unless all are, as the stream is one chain of hashes."""
WORK = 1 << 36
"""FLOPs that training them may take; eight times as many, of both, where all is asked."""
ANEW = 100
"""Records that are trained anew unless all is asked, some three seconds each."""
ASKED = 1 << 14
"""Examples of a split whose answers are counted, in a few seconds."""
LARGEST = 1 << 26
"""Parameters, tokens of a step, and examples, beyond which nothing is made for a record; and layers, times 2^16."""
RESCORED = 1e-3
"""How far scores of kept weights may lie from the record's, relative: rounding, by machine, may turn a few answers."""
ROUNDED, APART = 3, 10
"""Runs whose first parameters are rounded otherwise, and how many times as far as the farthest of them a loss may lie:
at a high rate 30 steps turn a difference of 1e-8, as between one thread and two, into one of 1e-3."""


class Recompute:
    """Makes anew what records imply; each task, stream of data and model once.

    The first `ANEW` records that it is given and that can be are trained anew: give them in an order that whoever made
    them cannot foresee (`shuffled`).

    Args:
        plugins: the plug-ins that were imported, by path or module. full: make all batches anew, not the first ones,
            train every record and longer, solve every size, and score the baselines of texts.
    """

    def __init__(self, plugins: Sequence[str] = (), *, full: bool = False) -> None:
        self.plugins, self.full = {plugin_digest(where) for where in plugins}, full
        self.left_out: Counter[str] = Counter()
        """Why records were not looked at, and how many."""
        self._tasks: dict[str, Task] = {}
        self._sizes: dict[tuple[int, int], int] = {}
        self._counts: dict[tuple[int, Split, int | None], int] = {}
        self._streams: dict[Any, list[str]] = {}
        self._measured: dict[Any, Size] = {}
        self._models: dict[Any, tuple[float, list[Any]]] = {}
        self._trained = 0
        self._compared: set[tuple[Path, str]] = set()
        self._opened = ExitStack()
        self._opened.enter_context(patch.dict(os.environ, {"ZOOBENCH_OFFLINE": "1"}))  # no record leads to a download
        self._known = self._opened.enter_context(cache.kept())

    def __enter__(self) -> "Recompute":
        return self

    def __exit__(self, *_: Any) -> None:
        self._opened.close()

    def __call__(self, record: Record, folder: Path | None = None) -> Iterator[Problem]:
        """Everything that differs from what a record says, whose folder may hold its weights."""
        spec = record.spec
        lacking = [name for name, digest in spec.plugins if digest not in self.plugins]
        if spec.pretrained or lacking:
            why = "published weights" if spec.pretrained else f"plug-ins that were not given: {', '.join(lacking)}"
            self.left_out[why] += 1
            return
        try:
            with machine.threads(record.provenance.threads):
                yield from self._made(record, folder)
        except DataError as error:
            self.left_out[str(error)] += 1
        except Exception as error:  # whatever the options of somebody else's record lead to
            yield "record", f"cannot be made here: {type(error).__name__}: {' '.join(str(error).split())[:300]}"

    def _made(self, record: Record, folder: Path | None) -> Iterator[Problem]:
        task = self._task(record.spec)
        if _too_large(record, task):
            self.left_out["too large to be made here"] += 1
            return
        found = [*self._data(record, task), *self._accuracy(record, task), *self._model(record, task)]
        yield from found
        ended = not found and (yield from self._start(record, task))
        weighed = yield from self._weights(record, task, folder)
        if record.metrics.valid and not (found or ended or weighed):
            self.left_out["scores without weights, of runs too long to be trained anew; see --rerun"] += 1
        yield from self._baselines(record, task, folder)

    def _task(self, spec: RunSpec) -> Task:
        key = json.dumps([spec.task, spec.task_options], sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = spec.build_task()
        return self._tasks[key]

    def _data(self, record: Record, task: Task) -> Iterator[Problem]:
        """The task's role, metric and fingerprint; the tokens of a step, and the hashes of the first ones."""
        spec, used = record.spec, record.budget.used
        if task.fingerprint != spec.fingerprint:
            yield "data", f"is other data than here ({spec.fingerprint}, not {task.fingerprint})"
            return
        if task.role != spec.role or record.metrics.replace(valid={}, test={}, tune=None) != Metrics.of(task):
            yield "scores", f"ranked by {record.metrics.primary}, not by {task.metric.name} as the task is"
        if not used.steps:
            return
        size = examples_of(spec, task)
        tokens = self._tokens(task, spec.seed, size)
        if used.tokens != used.steps * tokens:
            yield "budget", f"{used.tokens} tokens in {used.steps} steps of {tokens}"
        made = self._stream(task, spec.seed, size, used.steps if self.full else min(used.steps, STEPS))
        for step, known in sorted(stream_by_step(record).items()):
            if step <= len(made) and made[step - 1] != known:
                yield "data", f"consumed other batches by step {step} than its task gives"
                break

    def _accuracy(self, record: Record, task: Task) -> Iterator[Problem]:
        """An accuracy is a number of right answers over that of all; of tasks that count as most do."""
        if type(task).totals is not Task.totals:
            return
        for split in ("tune", "valid", "test"):
            share, limit = record.metrics.on(split).get("accuracy"), record.spec.evaluate.limit(split)
            if share is None or min(limit or math.inf, task.count(split) or math.inf) > ASKED:
                continue
            count = self._asked(task, split, limit)
            if abs(share * count - round(share * count)) > CLOSE:
                yield "scores", f"accuracy is {share:g} on {split}, which no number of right answers of {count} gives"

    def _asked(self, task: Task, split: Split, limit: int | None) -> int:
        """How many answers of a split are counted."""
        if (id(task), split, limit) not in self._counts:
            batches = task.evaluation(split, limit=limit)
            every = (batch.targets == batch.targets if batch.counted is None else batch.counted for batch in batches)
            self._counts[id(task), split, limit] = sum(int(counted.sum()) for counted in every)
        return self._counts[id(task), split, limit]

    def _tokens(self, task: Task, seed: int, size: int) -> int:
        """Of one step, which is the same for every seed."""
        if (id(task), size) not in self._sizes:
            self._sizes[id(task), size] = math.prod(task.batch("train", 0, seed, size=size).inputs.shape[:2])
        return self._sizes[id(task), size]

    def _stream(self, task: Task, seed: int, size: int, steps: int) -> list[str]:
        """The hashes of the stream after each of the first steps."""
        known = self._streams.setdefault((id(task), seed, size), [""])
        for step in range(len(known) - 1, steps):
            known.append(extend_hash(known[-1], task.batch("train", step, seed, size=size)))
        return known[1 : steps + 1]

    def _model(self, record: Record, task: Task) -> Iterator[Problem]:
        """The size that the match rule leads to, the FLOPs of a step, and what the architecture brings along."""
        spec, size = record.spec, record.size
        if record.status == "unsupported" or self.full:
            solved = known_size(spec, task, self._known)
            if isinstance(solved, str) != (record.status == "unsupported"):
                yield "size", f"is {record.status}; here {solved if isinstance(solved, str) else 'it can be built'}"
            elif not isinstance(solved, str) and size and (size.width, size.depth) != (solved.width, solved.depth):
                yield "size", f"is {size.width} wide, {size.depth} deep, not {solved.width}, {solved.depth}"
        if size is None or not record.budget.used.steps:
            return
        built = self._measure(spec, task, replace(task.shape, width=size.width, depth=size.depth or None))
        for name in SIZES:
            if getattr(size, name) != getattr(built, name):
                yield "size", f"{name} is {getattr(size, name)}, and {getattr(built, name)} here"
                return
        if not record.digest:  # of code that counted FLOPs, and listed defaults, in other ways
            return
        flops, defaults = self._built(spec, task, built)
        if not close(flops, record.budget.flops_per_token or 0.0):
            yield "budget", f"{record.budget.flops_per_token} FLOPs a token, and {flops} here"
        if defaults != [one.to_dict() for one in record.defaults or ()]:
            yield "record", "its architecture has other defaults of its own"

    def _measure(self, spec: RunSpec, task: Task, shape: Shape) -> Size:
        """The size of a model of some width and depth, which is not built for it."""
        key = spec.architecture, spec.role, repr(spec.options), id(task), shape
        if key not in self._measured:
            self._measured[key] = measure(spec.architecture, spec.role, shape, **own_options(spec))
        return self._measured[key]

    def _built(self, spec: RunSpec, task: Task, size: Size) -> tuple[float, list[Any]]:
        """FLOPs per token, and the settings of the architecture's own."""
        train, examples = spec.train, examples_of(spec, task)
        assert train is not None
        same = spec.architecture, spec.role, repr(spec.options), id(task), size
        key = *same, examples, train.accumulate, train.precision
        if key not in self._models:
            model = build_model(spec, task, size)
            flops = step_flops(spec, task, model) / self._tokens(task, spec.seed, examples)
            self._models[key] = flops, [one.to_dict() for one in overrides_of(model, spec.options)]
        return self._models[key]

    def _start(self, record: Record, task: Task) -> Generator[Problem, None, bool]:
        """The first steps, trained anew, lose what the curve says; a run that ends within them, ends as it says.

        Returns whether there was anything to find out about how it ends.
        """
        rule, most = record.spec.stop, STEPS * (8 if self.full else 1)
        after = record.curve[0].steps if record.curve else 1
        if not record.digest or rule is None or rule.meter == "seconds" or after > most:
            return False
        size = self._size_of(record, task)
        if size is None:
            return False
        if self._trained == ANEW and not self.full:
            self.left_out[f"first steps, which are trained anew of {ANEW} records, drawn at random"] += 1
            return False
        self._trained += 1
        run, due, since = self._begun(record, task, size), {point.steps: point for point in record.curve}, list[float]()
        most = min(most, most // STEPS * WORK // run.cost.flops)
        near = RESCORED if (record.provenance.device, run.precision) == ("cpu", "fp32") else 2 * TOLERANCE
        while run.used.steps < most and not rule.done(run.used, run.cost):
            try:
                since.append(run.step())
            except Exception as error:
                if record.status not in ("diverged", "failed"):
                    yield "curve", f"its training ends here after {run.used.steps} steps: {error}"
                return True
            if point := due.get(run.used.steps):
                mean = sum(since) / len(since)
                if point.loss is None or not math.isclose(mean, point.loss, rel_tol=near):
                    steps, last = run.used.steps, len(since)
                    if point.loss and abs(mean - point.loss) <= self._apart(record, task, size, steps, last, mean):
                        self.left_out["first steps at a rate so high that rounding decides what they lose"] += 1
                        return False
                    yield "curve", f"loses {mean:g} by step {point.steps} here, not {point.loss}"
                    return True
                if other := self._other(run, record.spec, "valid", point.valid or {}):
                    yield "curve", f"{other} after {point.steps} steps"
                    return True
                since.clear()
        if not rule.done(run.used, run.cost):
            return False
        if record.status != "ok":
            yield "record", f"its status is {record.status}; here it ends well"
            return True
        for split in ("tune", "valid", "test"):
            if other := self._other(run, record.spec, split, record.metrics.on(split)):
                yield "scores", other
        return True

    def _apart(self, record: Record, task: Task, size: Size, steps: int, last: int, mean: float) -> float:
        """How far rounding alone may lead the mean loss of the last of these steps."""
        farthest = 0.0
        for seed in range(1, ROUNDED + 1):
            run, chance = self._begun(record, task, size), torch.Generator().manual_seed(seed)
            for parameter in run.model.parameters():
                signs = torch.randint(-1, 2, parameter.shape, generator=chance)
                parameter.data.mul_(1 + torch.finfo(parameter.dtype).eps * signs)
            try:
                losses = [run.step() for _ in range(steps)]
            except FloatingPointError:
                return math.inf
            farthest = max(farthest, abs(sum(losses[-last:]) / last - mean))
        return APART * farthest

    def _other(self, run: "_Begun", spec: RunSpec, split: Split, claimed: Scores) -> str:
        """The first of these scores that the model as it stands does not have; empty where it has all."""
        scores = self._scored(spec, run.task, run.model, split) if claimed else {}
        for name, value in claimed.items():
            if value is not None and not math.isclose(value, scores[name], rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                return f"{name} is {scores[name]:g} on {split} here, not {value:g}"
        return ""

    def _size_of(self, record: Record, task: Task) -> Size | None:
        """The size of a run that began, as its record has it or as it is solved here; None of any other."""
        size = record.size
        if record.status == "failed":
            known = known_size(record.spec, task, self._known)
            return None if isinstance(known, str) else known
        if record.status not in ("ok", "diverged") or size is None:
            return None
        return Size(**{name: getattr(size, name) for name in SIZES})

    def _begun(self, record: Record, task: Task, size: Size) -> "_Begun":
        examples = examples_of(record.spec, task)
        tokens = self._tokens(task, record.spec.seed, examples)
        flops = round(self._built(record.spec, task, size)[0] * tokens)
        return _Begun(record, task, build_model(record.spec, task, size), examples, Meters(tokens, 1, flops))

    def suite(self, described: Mapping[str, Any], records: Sequence[Record]) -> Iterator[Odd]:
        """Records of one run that differ, and what is not as the suite's text has it: its board, its runs, its rows."""
        own = defaultdict[str, list[Record]](list)
        for record in records:
            own[record.run_id].append(record)
        for one, two in (pair for same in own.values() for pair in pairwise(same)):
            if one.digest and two.digest and not (two.spec.stop and two.spec.stop.meter == "seconds"):
                yield from ((two, "record", f"there are two of this run: {why}") for why in compare(one, two).problems)
        digested = [record for record in records if record.digest]
        try:
            loaded = _of_text(described.get("text", {}))
            runs = wanted(loaded, {run_id: same[0] for run_id, same in own.items()}) if digested else {}
            other = _unlike_shipped(loaded.name, described["text"])
        except (UserError, DataError, ValueError, TypeError, KeyError) as error:
            self.left_out[f"their suite cannot be read here: {error}"] += len(records)
            return
        if other:
            self.left_out[f"their suite is not {loaded.name} as it ships here, but in {other}"] += len(records)
        yield from ((record, "suite", why) for record in records[:1] for why in _told(described, loaded))
        for record in digested:
            if record.run_id not in runs:
                yield record, "suite", foreign(record.spec, runs.values())
        yield from self._lacking([spec for run_id, spec in runs.items() if run_id not in own], records)

    def _lacking(self, lacking: Sequence[RunSpec], records: Sequence[Record]) -> Iterator[Odd]:
        """Runs that rows lack; rows that have none are left out, as a suite may be made and published row by row."""
        rows = {record.spec.cell for record in records}
        if some := [spec for spec in lacking if spec.cell in rows]:
            yield records[0], "suite", f"{len(some)} runs of its rows are not here, such as {some[0].title()}"
        if none := {spec.cell: None for spec in lacking if spec.cell not in rows}:
            cell = next(iter(none))
            one = " · ".join(filter(None, (cell.task, cell.track, cell.architecture)))
            self.left_out[f"{len(none)} row(s) of their suite have no run here, such as {one}"] += len(records)

    def _weights(self, record: Record, task: Task, folder: Path | None) -> Generator[Problem, None, bool]:
        """Weights that lie beside a record give its scores; returns whether there are any."""
        if folder is None or record.status != "ok" or not (folder / MODEL / "zoo.json").is_file():
            return False
        made, spec = read_json(folder / MODEL / "zoo.json"), record.spec
        shape = dict(made.get("shape") or {})
        theirs = [made.get("architecture"), made.get("role"), made.get("options"), *map(shape.get, ("width", "depth"))]
        size = record.size and [record.size.width, record.size.depth or None]
        if json.dumps(theirs) != json.dumps([spec.architecture, spec.role, own_options(spec), *(size or ())]):
            yield "weights", "are another model's"  # which is not built: it may be of any size
            return True
        model = load(folder / MODEL, kind="zoo")
        for split in ("valid", "test"):
            scores = self._scored(record.spec, task, model, split)
            for name, value in record.metrics.on(split).items():
                here = scores.get(name, math.nan)
                if value is not None and not math.isclose(value, here, rel_tol=RESCORED, abs_tol=RESCORED):
                    yield "weights", f"give {name} {here:g} on {split}, not {value:g}"
        return True

    def _baselines(self, record: Record, task: Task, folder: Path | None) -> Iterator[Problem]:
        """The baselines beside a run's suite are those of its task; of texts, which take a minute, if all is asked."""
        spec, most = record.spec, record.spec.evaluate.test
        key = baseline_key(spec.task_label, spec.fingerprint, most)
        if folder is None or (folder.parent, key) in self._compared or (task.tokenizer is not None and not self.full):
            return
        self._compared.add((folder.parent, key))
        stored = Store(folder.parent.name, folder.parent.parent).read_baselines().get(key)
        if stored is None:
            if Store(folder.parent.name, folder.parent.parent).read_baselines():
                yield "baselines", "of its task are not among those of its suite"
            return
        theirs = {row.get("name"): row.get("value") for row in stored}
        made = {one.name: one.value for one in task.baselines(None if most == "all" else most)}
        if theirs.keys() != made.keys():
            yield "baselines", f"are {', '.join(map(str, theirs))}, not {', '.join(made)}"
        for name in made.keys() & theirs.keys():
            if not math.isclose(made[name], theirs[name], rel_tol=10 * RESCORED):  # some are fitted
                yield "baselines", f"{name} is {theirs[name]}, and {made[name]:g} here"

    def _scored(self, spec: RunSpec, task: Task, model: Model, split: Split) -> Scores:
        size = max(8, examples_of(spec, task))
        return evaluate(model, task, split, size=size, limit=spec.evaluate.limit(split))


class _Begun:
    """A run from its first step on, on the CPU, without what a runner adds: gates, clocks, checkpoints."""

    def __init__(self, record: Record, task: Task, model: Model, examples: int, cost: Meters) -> None:
        assert record.spec.train is not None
        assert record.spec.stop is not None
        self.settings, self.rule, self.seed = record.spec.train, record.spec.stop, record.spec.seed
        self.task, self.model, self.examples, self.cost, self.used = task, model.train(), examples, cost, Meters()
        self.precision = record.provenance.precision or "fp32"
        train = self.settings
        self.optimizer = adamw(model, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)
        self.loss = partial(task.loss, label_smoothing=model.recipe.label_smoothing)

    def step(self) -> float:
        """Make one step as `harness.training.train` does; its loss."""
        used, cost, train = self.used, self.cost, self.settings
        ahead = min(1.0, self.rule.progress(used) + cost.of(self.rule.meter) / self.rule.limit)
        shape = self.model.recipe.schedule or train.schedule
        set_lr(self.optimizer, schedule(shape, ahead, warmup=train.warmup, final=train.final_lr))
        batch = self.task.batch("train", used.steps, self.seed, size=self.examples).tensors("cpu")
        own = parts.split(batch, train.accumulate)
        autocast = machine.autocast(torch.device("cpu"), self.precision)
        value, norm = descend(self.model, own, self.loss, self.optimizer, autocast=autocast, clip=train.clip)
        if not math.isfinite(value + norm):
            raise FloatingPointError(f"loss {value}, gradient norm {norm}")
        self.used = Meters(used.tokens + cost.tokens, used.steps + 1, used.flops + cost.flops)
        return value


def _of_text(text: Mapping[str, Any]) -> LoadedSuite:
    """The suite that a text has.

    Raises:
        UserError: there is none, or it names what nobody asked to import or to fetch.
    """
    whole = {key: value for key, value in text.items() if key not in ("extends", "lm_eval")}
    if not whole:
        raise UserError("it has no text")
    if "plugins" in whole or "pretrained" in json.dumps(whole):
        raise UserError("it names plug-ins or published weights")
    return load_suite(whole)


def _told(described: Mapping[str, Any], loaded: LoadedSuite) -> Iterator[str]:
    """What boards read of a suite beside its text, and is not what the text says."""
    said = loaded.described(())
    for key in sorted({*said, "seeds"} - {"text", "runs"}):
        if json.dumps(plain(said.get(key))) != json.dumps(described.get(key)):
            yield f"its board has another {key!r} than its text"


def _unlike_shipped(name: str, text: Mapping[str, Any]) -> str:
    """The keys in which a text differs from the suite that ships under its name, if one does."""
    ships = load_suite(name).source.data if name in shipped() else text
    return ", ".join(key for key in sorted({*text, *ships}) if text.get(key) != ships.get(key))


def _too_large(record: Record, task: Task) -> bool:
    """Whether making what a record implies would take more than a checker has."""
    spec, size = record.spec, record.size
    counts = [task.shape.length, spec.train.batch_tokens if spec.train else 0, spec.evaluate.valid]
    counts += [] if spec.evaluate.test == "all" else [spec.evaluate.test]
    counts += [] if size is None else [size.params, size.width, size.depth << 16]
    return max(counts) > LARGEST
