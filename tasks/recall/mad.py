"""MAD's tasks other than recall: selective copying, compression, memorisation; and what all six share.

The `paper` difficulty is each task's baseline setting. The published MAD scores are means over that and a dozen harder
ones (longer, larger vocabularies, fewer examples, more noise: configs/tasks/*.yml, `changes`), each with the best of
six pairs of learning rate and weight decay on the test set, so a score here is not one of theirs.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from tasks.base import Baseline, Difficulty, Ids, Split, difficulty, whole
from tasks.baselines import accuracy, commonest
from tasks.draws import Draws
from tasks.recall.common import Recall, Tokens, commonest_so_far, fresh, guessed, nearest_to, read_out
from tasks.registry import register
from zoo.types import Batch

_PAPER = (
    "Poli et al. 2024, Mechanistic Design and Scaling of Hybrid Architectures, arXiv:2403.17844, section 3 and appendix"
)
_SOURCE = "https://github.com/athms/mad-lab (mad/data/instances.py, mad/configs.py, configs/tasks)"
_DEVIATIONS = (
    "accuracy is the mean over counted targets, where the official metric is the mean over classes",
    "the paper has no validation data: tune and valid splits are added",
)
TRAIN_EXAMPLES = 12_800


def mad(*deviations: str) -> Callable[[type[Recall]], type[Recall]]:
    """Register a MAD task, with its own deviations beside those of all six."""
    return register(paper=_PAPER, source=_SOURCE, deviations=(*_DEVIATIONS, *deviations))


class Mad(Recall):
    """A MAD task: 12,800 training examples made once, 1,280 test examples."""

    held_out: ClassVar[dict[Split, int]] = {"tune": 500, "valid": 1000, "test": 1280}


def difficulties(
    steps: int, smoke: Mapping[str, Any], small: Mapping[str, Any], examples: int = TRAIN_EXAMPLES
) -> dict[str, Difficulty]:
    """The three settings of a task whose inputs have `steps` steps in the paper; `smoke`, `small`: its options there.

    The paper's: width 128, two blocks of mixer and SwiGLU, 200 epochs in batches of 128, cosine to 1e-6; the learning
    rate is the middle one of {1e-4, 5e-4, 1e-3}, weight decay the first of {0, 0.1}.
    """
    model: dict[str, Any] = {"depth": 2, "channel": "glu"}
    paper = {"weight_decay": 0.0, "warmup": 0.0, "final_lr": 2e-3}
    tokens = 200 * examples * steps
    return {
        "smoke": difficulty(smoke, 50_000, tokens=150_000, lr=3e-3, batch_tokens=1024, **model),
        "small": difficulty(small, 100_000, tokens=4_000_000, lr=3e-3, batch_tokens=4096, **model),
        "paper": difficulty({}, 400_000, tokens=tokens, lr=5e-4, batch_tokens=128 * steps, train=paper, **model),
    }


@mad(
    "blanks are placed under the task's own seed: the official file takes their places from NumPy's global generator, "
    "which its seed does not reach",
    "data tokens of different splits differ",
)
class MadSelectiveCopy(Mad):
    """Copy the data tokens that stand among blanks (MAD's selective copying).

    M = `data` tokens drawn from 0..V−3 with replacement, with T − 2M − 1 blanks (V−2) put before them: each before a
    data token drawn uniformly, so the last data token ends the context. Then the copy token V−1 and M blanks; the
    target at the i-th of these is the i-th data token. Nothing else counts.

    Gaps between data tokens are then nearly even, so that places alone tell which is the i-th: the baseline `expected
    place` scores .81 at the default options.

    inputs, targets, counted: (B, T). Chance is 1/(V−2): blank and copy token are never an answer.

    Args:
        vocab: V. length: T. data: M. examples: size of the training set, the same for every seed; None for no end.
    """

    difficulties: ClassVar = difficulties(256, {"length": 32, "data": 4, "vocab": 8}, {"length": 96, "data": 8})

    def __init__(
        self, *, vocab: int = 16, length: int = 256, data: int = 16, examples: int | None = TRAIN_EXAMPLES
    ) -> None:
        whole(self.name, "vocab", vocab, 4)
        self.length, self.data = whole(self.name, "length", length), whole(self.name, "data", data)
        if 2 * data + 1 >= length:
            raise ValueError(f"{self.name}: length must be above 2 * data + 1 = {2 * data + 1}, got {length}")
        self._set(range(vocab - 2), vocab=vocab, steps=length, examples=examples, length=length, data=data)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        blanks = self.length - 2 * self.data - 1
        data = self.uniform(split, ids, seed, "tokens", self.data, 0, self.vocab - 2)
        before = self.draws(split, seed)("blanks").integers(ids, blanks, 0, self.data)
        places = np.arange(self.data) + (before[:, :, None] <= np.arange(self.data)).sum(axis=1)
        context = fresh(ids, blanks + self.data, self.vocab - 2)
        np.put_along_axis(context, places, data, axis=1)
        cue = fresh(ids, self.data + 1, self.vocab - 2)
        cue[:, 0] = self.vocab - 1
        return read_out(context, cue, data)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Guesses that keep one token, or that know places and not contents."""
        test, blanks = self.tested(limit), self.length - 2 * self.data - 1
        order = np.arange(self.data)
        near = np.zeros_like(test.targets)
        near[:, -self.data :] = nearest_to(test.inputs, self.answers, order + blanks * (order + 1) / self.data)
        return [
            *self.guesses(test, commonest="the context's commonest", last="the context's last data token"),
            guessed("expected place", near, test, "the data token nearest to where the i-th stands on average"),
        ]


@mad("sequences of different splits differ")
class MadCompression(Mad):
    """Give the whole input back from the output at its last step alone (MAD's compression).

    T − 1 tokens drawn uniformly from 0..V−2, and the compression token V−1, at which a causal model has to hold the
    sequence. Targets are the inputs, the compression token included, as in the official file.

    inputs, targets: (B, T); all count. Chance is ((T−1)/(V−1) + 1)/T: a guess among V−1 tokens at T−1 steps, and
    the last step, whose target is always the compression token.

    Args:
        vocab: V. length: T. examples: size of the training set, the same for every seed; None for no end.
    """

    role = "reconstruct"
    difficulties: ClassVar = difficulties(32, {"length": 8, "vocab": 8}, {"length": 16, "examples": None})

    def __init__(self, *, vocab: int = 16, length: int = 32, examples: int | None = TRAIN_EXAMPLES) -> None:
        whole(self.name, "vocab", vocab, 3)
        self.length = whole(self.name, "length", length, 2)
        chance = ((length - 1) / (vocab - 1) + 1) / length
        self._set(range(vocab - 1), vocab=vocab, steps=length, chance=chance, examples=examples, length=length)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        content = self.uniform(split, ids, seed, "tokens", self.length - 1, 0, self.vocab - 1)
        inputs = np.concatenate([content, fresh(ids, 1, self.vocab - 1)], axis=1)
        return Batch(inputs=inputs, targets=inputs.copy(), counted=np.ones(inputs.shape, dtype=bool))

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """One token at every step but the last, which is known."""
        test = self.tested(limit)
        constant = np.bincount(self.tuned().inputs[:, :-1].ravel()).argmax()
        guesses = [
            ("constant", constant, "the tune split's commonest token"),
            ("commonest", commonest_so_far(test.inputs, self.answers)[:, -1:], "the input's commonest token"),
            ("last", test.inputs[:, -2:-1], "the token before the last at every step"),
        ]
        known = np.arange(self.length) == self.length - 1
        return [
            guessed(name, np.where(known, self.vocab - 1, guess), test, f"{about}, then the last token")
            for name, guess, about in guesses
        ]


@mad(
    "the map from keys to values is another one than the official seed gives",
    "sequences of keys of different splits differ",
)
class MadMemorization(Mad):
    """Give the value of each key, in a map that stays the same for all examples and splits (MAD's memorisation).

    Keys are 0..K−1 with K = ⌊(V−1)/2⌋, values K..V−2, and a fixed one-to-one map goes from keys to values. An example
    is T/2 times a key, drawn uniformly with replacement, and the insert token V−1, at which the target is the key's
    value. Nothing else counts. Values never occur in the inputs: only training tells them.

    The splits share the map, which is what there is to learn; they share no sequence of keys. A score on test thus says
    whether the map was learnt, wherever a key may stand, and nothing about new keys.

    inputs, targets, counted: (B, T). Chance is 1/(V−1−K), one of the values.

    Args:
        vocab: V. length: T, even. examples: size of the training set, the same for every seed; None for no end.
    """

    difficulties: ClassVar = difficulties(32, {"vocab": 32, "length": 16}, {}, examples=256)

    def __init__(self, *, vocab: int = 256, length: int = 32, examples: int | None = 256) -> None:
        whole(self.name, "vocab", vocab, 5)
        self.length, self.keys = whole(self.name, "length", length, 2), (vocab - 1) // 2
        if length % 2:
            raise ValueError(f"{self.name}: length must be even, got {length}")
        self._set(range(self.keys, vocab - 1), vocab=vocab, steps=length, examples=examples, length=length)

    @cached_property
    def values(self) -> Tokens:
        """The map: the value of each key, shape (K,)."""
        shuffled = Draws(self.name, "map").permutation(np.zeros(1, dtype=np.int64), len(self.answers))[0]
        return self.keys + shuffled[: self.keys]

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        asked = self.uniform(split, ids, seed, "keys", self.length // 2, 0, self.keys)
        inputs = fresh(ids, self.length, self.vocab - 1)
        inputs[:, 0::2] = asked
        targets, counted = np.zeros_like(inputs), np.zeros(inputs.shape, dtype=bool)
        targets[:, 1::2], counted[:, 1::2] = self.values[asked], True
        return Batch(inputs=inputs, targets=targets, counted=counted)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """One value, whatever the key."""
        test = self.tested(limit)
        train = self.examples("train", np.arange(self.train_examples or 256), 0)
        value = commonest(train.targets[train.counted])
        return [accuracy("constant", value, test.targets[test.counted], "the training set's commonest value")]
