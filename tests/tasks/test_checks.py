"""Every check of tasks passes an honest task of each role, and catches the fault it is there for."""

import random
import sys

import numpy as np
import pytest
import torch

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


class Masked(Sums):
    role = "masked"


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


def outcomes(task, name="honest"):
    tasks.register(name)(task)
    return {outcome.check: outcome for outcome in checks.run(name)}


@pytest.mark.parametrize("task", [Honest, Sums, Masked, Same, Backwards])
def test_honest_tasks_pass(task):
    found = outcomes(task)
    assert list(found) == list(checks.CHECKS)
    assert found.pop("difficulties").status == "skipped"
    assert {outcome.status for outcome in found.values()} == {"passed"}, found


def test_built_in_tasks_keep_the_contract(task_name):
    subject = checks.Subject(task_name)
    for check in ("options", "metric", "purity", "seed", "shapes", "fingerprint", "evaluation", "difficulties"):
        outcome = checks.apply(check, subject)
        assert outcome.status != "failed", outcome


class NumPysGenerator(Honest):
    def tokens(self, split, ids, seed):
        return np.random.randint(0, 4, (len(ids), self.length))


class PythonsGenerator(Honest):
    def baselines(self, limit=None):
        return [Baseline("coin", random.choice([0.2, 0.3]), "drawn anew")]


class SeedsTorch(Honest):
    def examples(self, split, ids, seed):
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


class Overlap(Honest):
    def tokens(self, split, ids, seed):
        return super().tokens("train", ids, 0) if split == "test" else super().tokens(split, ids, seed)


class SeededTest(Honest):
    def tokens(self, split, ids, seed):
        ids = ids + 1000 * seed if split == "test" else ids
        return super().tokens(split, ids, seed)


class Unseeded(Honest):
    def tokens(self, split, ids, seed):
        return super().tokens(split, ids, 0)


class BeyondOutputs(Honest):
    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.targets = batch.targets + 1
        return batch


class BeyondVocab(Honest):
    def tokens(self, split, ids, seed):
        return super().tokens(split, ids, seed) - (1 if split == "valid" else 0)


class Narrow(Honest):
    def tokens(self, split, ids, seed):
        return super().tokens(split, ids, seed).astype(np.int32)


class ShortTraining(Honest):
    def tokens(self, split, ids, seed):
        return super().tokens(split, ids, seed)[:, : -4 if split == "train" else None]


class Holes(Sums):
    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.mask[:, 1] = False
        return batch


class CountsPadding(Sums):
    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.counted = None
        return batch


class NothingCounts(Sums):
    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.counted = batch.counted & (split != "tune")
        return batch


class SecondDocument(Same):
    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.inputs2 = None
        return batch


class Unshifted(Backwards):
    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.decoder_inputs[:, 1:] = batch.targets[:, 1:]
        return batch


class NeverStops(Backwards):
    decoding = Decoding(start=4, stop=3, longest=21)


class CutOff(Backwards):
    decoding = Decoding(start=4, stop=5, longest=20)


class UpsideDown(Honest):
    metric = Metric("accuracy", False, 0.25)


class Unscored(Honest):
    metric = Metric("f1", True, 0.25)


class NoChance(Honest):
    metric = Metric("accuracy", True, float("nan"))


class Percent(Honest):
    """Scores in hundredths, chance in percent."""

    metric = Metric("accuracy", True, 25.0)


class SameFingerprint(Honest):
    fingerprint = "honest/1"


class Counter(Honest):
    built = 0

    def __init__(self, *, length: int = 20) -> None:
        super().__init__(length=length)
        Counter.built += 1
        self.fingerprint_ = f"honest/{Counter.built}"

    fingerprint = property(lambda self: self.fingerprint_)


class DropsTheRest(Honest):
    def evaluation(self, split, *, size=32, limit=None):
        for batch in super().evaluation(split, size=size, limit=limit):
            if len(batch) == size:
                yield batch


class Means(Honest):
    def totals(self, logits, batch):
        return {name: (value / weight, 1.0) for name, (value, weight) in super().totals(logits, batch).items()}


class BeatsPerfect(Honest):
    def baselines(self, limit=None):
        return [Baseline("oracle", 1.0, "too good to be true")]


class InPercent(Honest):
    def baselines(self, limit=None):
        return [Baseline("last", 25.0, "in another unit")]


class NoBaseline(Honest):
    def baselines(self, limit=None):
        return []


class NaNBaseline(Honest):
    def baselines(self, limit=None):
        return [Baseline("last", float("nan"), "0 / 0")]


class Imbalanced(Honest):
    """Nine answers in ten are 0, which its baseline does not say."""

    def examples(self, split, ids, seed):
        batch = super().examples(split, ids, seed)
        batch.targets = np.where(batch.inputs[:, 1:3].sum(axis=1) > 0, 0, batch.targets)
        return batch


class NeverPerfect(Honest):
    def totals(self, logits, batch):
        totals = super().totals(logits, batch)
        return {**totals, "accuracy": (0.9 * totals["accuracy"][0], totals["accuracy"][1])}


class Unvalidated(Honest):
    def __init__(self, *, length: int = 20) -> None:
        self.length = length


class Unannotated(Honest):
    def __init__(self, *, length=20) -> None:
        super().__init__(length=length)


class UnknownOption(Honest):
    difficulties = {"smoke": Difficulty(), "small": Difficulty({"size": 3})}


class TwoStops(Honest):
    difficulties = {"smoke": Difficulty(stop={"tokens": 5, "steps": 5})}


@pytest.mark.parametrize(
    ("task", "check", "why"),
    [
        (NumPysGenerator, "purity", "global"),
        (SeedsTorch, "purity", "global"),
        (PythonsGenerator, "baselines", "global"),
        (Company, "purity", "alone"),
        (Place, "purity", "reversed"),
        (OwnStore, "purity", "again"),
        (Overlap, "splits", "300 of test stand in train; such as test 0 is train 0"),
        (SeededTest, "seed", "changes examples of test"),
        (Unseeded, "seed", "two seeds give the same"),
        (BeyondOutputs, "shapes", "targets lie in [0, 4]; they must be at least 0 and below shape.outputs = 4"),
        (BeyondVocab, "shapes", "valid: inputs lie in [-1, 2]"),
        (Narrow, "shapes", "inputs must be int64"),
        (ShortTraining, "shapes", "train: inputs have 16 steps, train_length says 20"),
        (Holes, "shapes", "prefix"),
        (CountsPadding, "shapes", "counted must say"),
        (NothingCounts, "shapes", "tune: no target counts"),
        (SecondDocument, "shapes", "inputs2"),
        (Unshifted, "shapes", "shifted right"),
        (NeverStops, "shapes", "must be decoding.stop, 3"),
        (CutOff, "shapes", "up to 21 tokens, decoding.longest says 20"),
        (UpsideDown, "metric", "no better than wrong answers, though lower is better"),
        (Unscored, "metric", "'f1' is not among the scores that totals returns: loss, accuracy"),
        (NoChance, "metric", "finite number"),
        (Percent, "metric", "no better than chance"),
        (SameFingerprint, "fingerprint", "the same with length=21"),
        (Counter, "fingerprint", "another when built again"),
        (DropsTheRest, "evaluation", "batches of 7"),
        (Means, "evaluation", "depends on the size of the batches"),
        (BeatsPerfect, "baselines", "oracle: as good as right answers, or better"),
        (InPercent, "baselines", "last: as good as right answers, or better"),
        (NoBaseline, "baselines", "none"),
        (NaNBaseline, "baselines", "last: not a finite number"),
        (Imbalanced, "baselines", "commonest training answers beat every baseline (last"),
        (NeverPerfect, "baselines", "right answers should score 1"),
        (Unvalidated, "options", "length=-1 is accepted"),
        (Unannotated, "options", "length has no annotation"),
        (UnknownOption, "difficulties", "small: TypeError: honest has no option 'size'"),
        (TwoStops, "difficulties", "smoke: stop must be one of"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_is_caught_by_the_check_that_names_it(task, check, why):
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
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    outcomes(SeedsTorch)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])
