"""What a record implies about data, models, weights and the first steps, made anew and compared."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from harness.errors import UserError
from harness.execute.rerun import TOLERANCE, compare
from harness.plan.expand import plugin_digest
from harness.plan.sizes import build_model, examples_of, known_size, own_options, step_flops
from harness.plan.wanted import foreign, wanted
from harness.records.checks import FIRST_COMMITS, Problem, close, stream_by_step
from harness.records.files import read_json
from harness.records.find import MODEL
from harness.records.record import Metrics, Record, Scores
from harness.records.spec import RunSpec
from harness.records.store import Store, baseline_key
from harness.records.stream_hash import extend_hash
from harness.records.together import Odd
from harness.suite.load import load as load_suite
from harness.training.evaluate import evaluate
from harness.training.overrides import overrides_of
from harness.training.run import Run
from harness.training.train import Diverged
from harness.training.train import step as train_step
from tasks.base import DataError, Split, Task
from zoo import cache
from zoo.contract import Model
from zoo.published import load
from zoo.size import Size, measure

STEPS = 32
"""Steps that are made anew: of the batches these first ones, unless all are, as the stream is one chain of hashes."""
WORK = 1 << 36
"""FLOPs that training them may take; eight times as many, of both, where all is asked."""
LARGEST = 1 << 26
"""Parameters, tokens of a step, and examples, beyond which nothing is made for a record; and layers, times 2^16."""
RESCORED = 1e-3
"""How far scores of kept weights may lie from the record's, relative: rounding, by machine, may turn a few answers."""


class Recompute:
    """Makes anew what records imply; each task, stream of data and model once.

    Args:
        plugins: the plug-ins that were imported, by path or module. full: make all batches anew, not the first ones,
            train longer, solve every size, and score the baselines of texts.
    """

    def __init__(self, plugins: Sequence[str] = (), *, full: bool = False) -> None:
        self.plugins, self.full = {plugin_digest(where) for where in plugins}, full
        self.left_out: Counter[str] = Counter()
        """Why records were not looked at, and how many."""
        self._tasks: dict[str, Task] = {}
        self._sizes: dict[tuple[int, int], int] = {}
        self._streams: dict[Any, list[str]] = {}
        self._models: dict[Any, tuple[float, list[Any]]] = {}
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
            task = self._task(spec)
            if _too_large(record, task):
                self.left_out["too large to be made here"] += 1
                return
            found = [*self._data(record, task), *self._model(record, task)]
            yield from found or self._start(record, task)
            yield from self._weights(record, task, folder)
            yield from self._baselines(record, task, folder)
        except DataError as error:
            self.left_out[str(error)] += 1
        except Exception as error:  # whatever the options of somebody else's record lead to
            yield "record", f"cannot be made here: {type(error).__name__}: {' '.join(str(error).split())[:300]}"

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
        if not record.digest and str(record.provenance.commit).startswith(FIRST_COMMITS):
            self.left_out["made by code whose images and texts were hashed in another way"] += 1
            return
        made = self._stream(task, spec.seed, size, used.steps if self.full else min(used.steps, STEPS))
        for step, known in sorted(stream_by_step(record).items()):
            if step <= len(made) and made[step - 1] != known:
                yield "data", f"consumed other batches by step {step} than its task gives"
                break

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
        shape = replace(task.shape, width=size.width, depth=size.depth or None)
        built = measure(spec.architecture, spec.role, shape, **own_options(spec))
        for name in ("width", "depth", "params", "params_non_embedding", "state_bytes"):
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

    def _built(self, spec: RunSpec, task: Task, size: Size) -> tuple[float, list[Any]]:
        """FLOPs per token, and the settings of the architecture's own."""
        key = (spec.replace(seed=0).run_id, size)
        if key not in self._models:
            model = build_model(spec, task, size)
            flops = step_flops(spec, task, model) / self._tokens(task, spec.seed, examples_of(spec, task))
            self._models[key] = flops, [one.to_dict() for one in overrides_of(model, spec.options)]
        return self._models[key]

    def _start(self, record: Record, task: Task) -> Iterator[Problem]:
        """The first steps, trained anew, lose what the curve says; a run that ends within them, ends as it says."""
        rule, made, most = record.spec.stop, record.provenance, STEPS * (8 if self.full else 1)
        after = record.curve[0].steps if record.curve else 1
        if not record.digest or rule is None or rule.meter == "seconds" or after > most:
            return
        run = self._run(record, task)
        if run is None:
            return
        used, due = run.progress.used, {point.steps: point.loss for point in record.curve}
        most = min(most, most // STEPS * WORK // run.step_cost.flops)
        near = RESCORED if (made.device, run.device.type, made.precision) == ("cpu", "cpu", "fp32") else 2 * TOLERANCE
        run.model.train()
        while used.steps < most and not rule.done(used, run.step_cost):
            try:
                train_step(run, task.batch("train", used.steps, record.spec.seed, size=run.examples))
            except Exception as error:
                if record.status != ("diverged" if isinstance(error, Diverged) else "failed"):
                    yield "curve", f"its training ends here after {used.steps} steps: {error}"
                return
            known, mean = due.get(used.steps), run.progress.loss_sum / run.progress.loss_steps
            if used.steps in due and not math.isclose(mean, known or math.nan, rel_tol=near):
                yield "curve", f"loses {mean:g} by step {used.steps} here, not {known}"
                return
            if used.steps in due:
                run.progress.loss_sum, run.progress.loss_steps = 0.0, 0
        if rule.done(used, run.step_cost):
            yield from _ended(run, record)

    def _run(self, record: Record, task: Task) -> Run | None:
        """A run before its first step, at the record's size and precision; None where it cannot be, or is no matter."""
        spec, made, size = record.spec, record.provenance, record.size
        assert spec.train is not None
        if record.status == "failed":
            known = known_size(spec, task, self._known)
        elif record.status in ("ok", "diverged") and size is not None:
            counts = size.params, size.params_non_embedding, size.state_bytes
            known = Size(size.width, size.depth, *counts)
        else:
            return None
        spec = spec.replace(train=spec.train.replace(precision=made.precision or spec.train.precision))
        with TemporaryDirectory() as folder:
            return None if isinstance(known, str) else Run(spec, task, known, Path(folder), lambda event: None)

    def suite(self, described: Mapping[str, Any], records: Sequence[Record]) -> Iterator[Odd]:
        """Records of one run that differ, those of no run of the suite as its text has it, and what its rows lack."""
        own = defaultdict[str, list[Record]](list)
        for record in records:
            own[record.run_id].append(record)
        for one, two in (pair for same in own.values() for pair in pairwise(same)):
            if one.digest and two.digest and not (two.spec.stop and two.spec.stop.meter == "seconds"):
                yield from ((two, "record", f"there are two of this run: {why}") for why in compare(one, two).problems)
        text = {key: value for key, value in described.get("text", {}).items() if key not in ("extends", "lm_eval")}
        digested = [record for record in records if record.digest]
        if not text or not digested or "plugins" in text or "pretrained" in json.dumps(text):
            return
        try:
            runs = wanted(load_suite(text), {run_id: same[0] for run_id, same in own.items()})
        except (UserError, DataError, ValueError, TypeError, KeyError) as error:
            self.left_out[f"its suite cannot be read here: {error}"] += 1
            return
        for record in digested:
            if record.run_id not in runs:
                yield record, "suite", foreign(record.spec, runs.values())
        rows = {record.spec.cell for record in records}
        if lacking := [spec for run_id, spec in runs.items() if run_id not in own and spec.cell in rows]:
            yield digested[0], "suite", f"{len(lacking)} runs of its rows are not here, such as {lacking[0].title()}"

    def _weights(self, record: Record, task: Task, folder: Path | None) -> Iterator[Problem]:
        """Weights that lie beside a record give its scores."""
        if folder is None or record.status != "ok" or not (folder / MODEL / "zoo.json").is_file():
            return
        made, spec = read_json(folder / MODEL / "zoo.json"), record.spec
        shape = dict(made.get("shape") or {})
        theirs = [made.get("architecture"), made.get("role"), made.get("options"), *map(shape.get, ("width", "depth"))]
        size = record.size and [record.size.width, record.size.depth or None]
        if json.dumps(theirs) != json.dumps([spec.architecture, spec.role, own_options(spec), *(size or ())]):
            yield "weights", "are another model's"  # which is not built: it may be of any size
            return
        model = load(folder / MODEL, kind="zoo")
        for split in ("valid", "test"):
            scores = self._scored(record.spec, task, model, split)
            for name, value in record.metrics.on(split).items():
                here = scores.get(name, math.nan)
                if value is not None and not math.isclose(value, here, rel_tol=RESCORED, abs_tol=RESCORED):
                    yield "weights", f"give {name} {here:g} on {split}, not {value:g}"

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


def _ended(run: Run, record: Record) -> Iterator[Problem]:
    """How a run ended here, against what its record says."""
    if record.status != "ok":
        yield "record", f"its status is {record.status}; here it ends well"
        return
    for split in ("tune", "valid", "test"):
        for name, value in record.metrics.on(split).items():
            here = run.score(split)[name]
            if value is not None and not math.isclose(value, here, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                yield "scores", f"{name} is {here:g} on {split} here, not {value:g}"


def _too_large(record: Record, task: Task) -> bool:
    """Whether making what a record implies would take more than a checker has."""
    spec, size = record.spec, record.size
    counts = [task.shape.length, spec.train.batch_tokens if spec.train else 0, spec.evaluate.valid]
    counts += [] if spec.evaluate.test == "all" else [spec.evaluate.test]
    counts += [] if size is None else [size.params, size.width, size.depth << 16]
    return max(counts) > LARGEST
