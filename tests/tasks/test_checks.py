"""Every check of tasks passes an honest task of each role, and catches the fault it is there for."""

import itertools
import random
import sys

import numpy as np
import pytest

import tasks
from tasks import Baseline, DataError, Decoding, Difficulty, Metric, Task, checks
from tasks.base import whole
from tasks.draws import Draws
from zoo.registry import load_plugin
from zoo.types import Batch, Shape


class Honest(Task):
    """Name the token that stood first."""

    role = "classify"
    metric = Metric("accuracy", True, 0.25)

    def __init__(self, *, length: int = 20) -> None:
        self.length = whole("honest", "length", length, 4)

    @property
    def shape(self):
        return Shape(length=self.length, vocab=4, outputs=4)

    @property
    def fingerprint(self):
        return f"honest/1 length={self.length}"

    def count(self, split):
        return None if split == "train" else 300

    def tokens(self, split, ids, seed):
        return Draws("honest", split, seed if split == "train" else 0).integers(ids, self.length, 0, 4)

    def examples(self, split, ids, seed):
        tokens = self.tokens(split, ids, seed)
        return Batch(inputs=tokens, targets=tokens[:, 0])

    def baselines(self, limit=None):
        test = self.examples("test", self.evaluation_ids("test", limit), 0)
        return [Baseline("last", float(np.mean(test.inputs[:, -1] == test.targets)), "the last token")]


class Sums(Honest):
    """At every valid step the sum modulo 4 of the tokens so far; lengths differ."""

    role = "lm"

    def examples(self, split, ids, seed):
        tokens = self.tokens(split, ids, seed)
        mask = np.arange(self.length) < self.length - Draws("sums", split).integers(ids, 1, 0, 4)
        return Batch(tokens * mask, np.cumsum(tokens, axis=1) % 4 * mask, mask=mask, counted=mask.copy())

    def baselines(self, limit=None):
        test = self.examples("test", self.evaluation_ids("test", limit), 0)
        return [Baseline("copy", float(np.mean((test.inputs == test.targets)[test.mask])), "the token itself")]


class Same(Honest):
    """Whether two documents begin with the same token."""

    role = "retrieve"

    def examples(self, split, ids, seed):
        one, other = self.tokens(split, ids, seed), self.tokens(split, ids + 10_000_000, seed)
        return Batch(one, (one[:, 0] % 2 == other[:, 0] % 2).astype(np.int64), inputs2=other)

    def baselines(self, limit=None):
        return [Baseline("half", 0.5, "a coin")]


class Backwards(Honest):
    """Write the tokens in reverse; 4 starts, 5 stops."""

    role = "seq2seq"
    metric = Metric("exact", True, 0.0)

    @property
    def decoding(self):
        return Decoding(start=4, stop=5, longest=self.length + 1)

    @property
    def shape(self):
        return Shape(length=self.length, vocab=4, outputs=6, target_length=self.length + 1)

    def examples(self, split, ids, seed):
        tokens = self.tokens(split, ids, seed)
        targets = np.pad(tokens[:, ::-1], ((0, 0), (0, 1)), constant_values=5)
        shifted = np.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=4)
        return Batch(tokens, targets, decoder_inputs=shifted)

    def decoded(self, answers, batch):
        wanted = batch.targets[:, :-1].tolist()
        return {"exact": (sum(list(a) == b for a, b in zip(answers, wanted, strict=True)), len(wanted))}

    def baselines(self, limit=None):
        return [Baseline("silence", 0.0, "nothing is written")]


def changed(base=Honest, **members):
    """A task with other members."""
    return type("Changed", (base,), {"__module__": __name__, **members})


def outcomes(task, name="honest"):
    tasks.register(name)(task)
    return {outcome.check: outcome for outcome in checks.run(name)}


@pytest.mark.parametrize("task", [Honest, Sums, changed(Sums, role="masked"), Same, Backwards])
def test_honest_tasks_pass(task):
    found = outcomes(task)
    assert list(found) == list(checks.CHECKS)
    assert found.pop("difficulties").status == "skipped"
    assert {outcome.status for outcome in found.values()} == {"passed"}, found


def test_built_in_tasks_keep_the_contract(task_name):
    subject = checks.Subject(task_name)
    for check in [check for check in checks.CHECKS if check != "baselines"]:  # those take their time
        outcome = checks.apply(check, subject)
        assert outcome.status != "failed", outcome


def spoilt(array, change, base=Honest):
    """A task with one array of its batches changed, from what it is and the split."""

    def examples(self, split, ids, seed):
        batch = base.examples(self, split, ids, seed)
        setattr(batch, array, change(getattr(batch, array), split))
        return batch

    return changed(base, examples=examples)


def redrawn(tokens):
    """A task whose tokens are drawn from `Honest.tokens` otherwise."""
    return changed(tokens=lambda self, *place: tokens(self, Honest.tokens, *place))


def scored(change):
    """A task with another sum and weight of each score."""

    def totals(self, logits, batch):
        return {name: change(*both) for name, both in Honest.totals(self, logits, batch).items()}

    return changed(totals=totals)


def guessing(*guesses):
    return changed(baselines=lambda self, limit=None: [Baseline(*guess) for guess in guesses])


class SeedsTorch(Honest):
    def examples(self, split, ids, seed):
        import torch

        torch.manual_seed(0)
        return super().examples(split, ids, seed)


class Company(Honest):
    """Pads to the longest example of the batch, so that the shape tells of the others."""

    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.inputs = batch.inputs[:, : max(4, int(ids.max()) % (self.length + 1))]
        return batch


class Place(Honest):
    """Numbers examples by their place in the batch."""

    def examples(self, split, ids, seed):
        return super().examples(split, np.arange(len(ids)), seed)


class OwnStore(Honest):
    """Hands out the array that it keeps."""

    store: dict = {}

    def tokens(self, split, ids, seed):
        key = (split, seed, *ids.tolist())
        if key not in self.store:
            self.store[key] = super().tokens(split, ids, seed)
        return self.store[key]


class Renamed(Honest):
    built = itertools.count()

    def __init__(self, *, length: int = 20) -> None:
        super().__init__(length=length)
        self.number = next(Renamed.built)

    fingerprint = property(lambda self: f"honest/{self.number}")


class DropsTheRest(Honest):
    def evaluation(self, split, *, size=32, limit=None):
        return (batch for batch in super().evaluation(split, size=size, limit=limit) if len(batch) == size)


class Imbalanced(Honest):
    """Nine answers in ten are 0, which its baseline does not say."""

    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.targets = np.where(batch.inputs[:, 1:3].sum(axis=1) > 0, 0, batch.targets)
        return batch


class Unvalidated(Honest):
    def __init__(self, *, length: int = 20) -> None:
        self.length = length


class Unannotated(Honest):
    def __init__(self, *, length=20) -> None:
        super().__init__(length=length)


FAULTS = [
    (
        "purity",
        "global",
        redrawn(lambda self, draw, split, ids, seed: np.random.randint(0, 4, (len(ids), self.length))),
    ),
    ("purity", "global", SeedsTorch),
    ("baselines", "global", changed(baselines=lambda self, limit: [Baseline("coin", random.choice([0.2, 0.3]), "")])),
    ("purity", "alone", Company),
    ("purity", "reversed", Place),
    ("purity", "again", OwnStore),
    (
        "splits",
        "300 of test stand in train; such as test 0 is train 0",
        redrawn(lambda self, draw, split, ids, seed: draw(self, "train" if split == "test" else split, ids, 0)),
    ),
    (
        "seed",
        "changes examples of test",
        redrawn(lambda self, draw, split, ids, seed: draw(self, split, ids + 1000 * seed * (split == "test"), seed)),
    ),
    ("seed", "two seeds give the same", redrawn(lambda self, draw, split, ids, seed: draw(self, split, ids, 0))),
    ("shapes", "targets lie in [0, 4]; they must be at least 0", spoilt("targets", lambda targets, split: targets + 1)),
    ("shapes", "valid: inputs lie in [-1, 2]", spoilt("inputs", lambda inputs, split: inputs - (split == "valid"))),
    ("shapes", "inputs must be int64", spoilt("inputs", lambda inputs, split: inputs.astype(np.int32))),
    (
        "shapes",
        "train_length says 20",
        spoilt("inputs", lambda inputs, split: inputs[:, : 20 - 4 * (split == "train")]),
    ),
    ("shapes", "prefix", spoilt("mask", lambda mask, split: mask & (np.arange(20) != 1), Sums)),
    ("shapes", "counted must say", spoilt("counted", lambda counted, split: None, Sums)),
    ("shapes", "tune: no target counts", spoilt("counted", lambda counted, split: counted & (split != "tune"), Sums)),
    ("shapes", "inputs2", spoilt("inputs2", lambda inputs2, split: None, Same)),
    ("shapes", "shifted right", spoilt("decoder_inputs", lambda shown, split: np.roll(shown, -1, axis=1), Backwards)),
    ("shapes", "must be decoding.stop, 3", changed(Backwards, decoding=Decoding(start=4, stop=3, longest=21))),
    ("shapes", "up to 21 tokens, decoding.longest says 20", changed(Backwards, decoding=Decoding(4, 5, longest=20))),
    ("metric", "wrong answers, though lower is better", changed(metric=Metric("accuracy", False, 0.25))),
    ("metric", "'f1' is not among the scores that totals returns", changed(metric=Metric("f1", True, 0.25))),
    ("metric", "finite number", changed(metric=Metric("accuracy", True, float("nan")))),
    ("metric", "no better than chance", changed(metric=Metric("accuracy", True, 25.0))),
    ("fingerprint", "the same with length=21", changed(fingerprint="honest/1")),
    ("fingerprint", "another when built again", Renamed),
    ("evaluation", "batches of 7", DropsTheRest),
    ("evaluation", "depends on the size of the batches", scored(lambda value, weight: (value / weight, 1.0))),
    ("baselines", "right answers should score 1", scored(lambda value, weight: (0.9 * value, weight))),
    ("baselines", "oracle: as good as right answers, or better", guessing(("oracle", 1.0, "too good to be true"))),
    ("baselines", "last: as good as right answers, or better", guessing(("last", 25.0, "in another unit"))),
    ("baselines", "none", guessing()),
    ("baselines", "last: not a finite number", guessing(("last", float("nan"), "0 / 0"))),
    ("baselines", "commonest training answers beat every baseline (last", Imbalanced),
    ("options", "length=-1 is accepted", Unvalidated),
    ("options", "length has no annotation", Unannotated),
    ("difficulties", "small: TypeError: honest has no", changed(difficulties={"small": Difficulty({"size": 3})})),
    ("difficulties", "one of", changed(difficulties={"smoke": Difficulty(stop={"tokens": 5, "steps": 5})})),
]
"""The check that must fail, what it says, and a task that is not honest."""


@pytest.mark.parametrize(("check", "why", "task"), FAULTS)
def test_a_fault_is_caught_by_the_check_that_names_it(check, why, task):
    tasks.register("honest")(task)
    outcome = checks.apply(check, checks.Subject("honest"))
    assert outcome.status == "failed"
    assert why in outcome.note


def test_errors_are_failures_and_absent_data_is_not():
    class Raises(Honest):
        def examples(self, split, ids, seed):
            raise ZeroDivisionError("planted")

    class Absent(Honest):
        def examples(self, split, ids, seed):
            raise DataError("corpus 'x' is not here: fetch it")

    found = outcomes(Raises)
    assert {name for name, outcome in found.items() if outcome.status != "failed"} == {"options", "difficulties"}
    assert found["seed"].note == "ZeroDivisionError: planted"
    found = outcomes(Absent, "absent")
    assert found["options"].status == "passed"
    assert {o.note for o in found.values() if o.status == "skipped"} == {
        "corpus 'x' is not here: fetch it",
        "none; smoke, small, paper are recommended",
    }
    assert not [outcome for outcome in found.values() if outcome.status == "failed"]


PLUGIN = """
import numpy as np
from tasks import Baseline, Metric, Task, register
from zoo.types import Batch, Shape

@register()
class Hashed(Task):
    role = "classify"
    metric = Metric("accuracy", True, 0.5)
    shape = Shape(length=3, vocab=100, outputs=2)
    fingerprint = "hashed/1"

    def count(self, split):
        return 100

    def examples(self, split, ids, seed):
        one = np.array([[hash(f"{split} {i}") % 100] for i in ids.tolist()])
        return Batch(one + np.zeros((1, 3), dtype=np.int64), one[:, 0] % 2)

    def baselines(self, limit=None):
        return [Baseline("coin", 0.5, "heads")]
"""


def test_another_process_has_other_hashes(tmp_path):
    file = tmp_path / "hashed.py"
    file.write_text(PLUGIN)
    load_plugin(file)
    outcome = checks.apply("purity", checks.Subject("hashed"))
    assert (outcome.status, outcome.note) == ("failed", "train, tune, valid, test: other examples in another process")
    file.write_text(PLUGIN.replace("hash(f", "len(f"))
    del sys.modules["zoobench_plugin_hashed"]
    load_plugin(file)
    outcome = checks.apply("purity", checks.Subject("hashed"))
    assert (outcome.status, outcome.note) == ("passed", "")


def test_options_take_the_place_of_the_smoke_difficulty():
    class Graded(Honest):
        difficulties = {"smoke": Difficulty({"length": 8})}

    tasks.register("graded")(Graded)
    assert checks.Subject("graded").task.length == 8
    assert checks.Subject("graded", {"length": 12}).task.length == 12
    assert {outcome.status for outcome in checks.run("graded", length=12)} == {"passed"}
    with pytest.raises(KeyError, match="did you mean 'graded'"):
        checks.run("gradd")


def test_checks_leave_the_global_generators_alone():
    import torch

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    outcomes(SeedsTorch)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
