"""Masked language modelling: the tokens of a text that were hidden, with what stands on both sides of them."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.base import Baseline, Ids, Split, difficulty, in_epochs
from tasks.draws import Draws
from tasks.language.windows import Windows
from tasks.registry import register
from zoo.types import Batch

PORTION = 0.15
"""Tokens of a window that are predicted. Of these .8 are masked, .1 replaced at random and .1 left as they are."""
LARGEST = 4096
"""Up to as many different tokens, the bigram baseline is computed."""


@register(
    paper="Devlin et al. 2018, BERT: Pre-training of Deep Bidirectional Transformers, arXiv:1810.04805, section 3.1",
    source="https://github.com/google-research/bert (create_pretraining_data.py, create_masked_lm_predictions)",
    deviations=(
        "windows of one text, without sentence pairs and special tokens",
        "a window is masked anew in every epoch (RoBERTa, arXiv:1907.11692, section 4.1), not ten times in advance",
    ),
)
class MaskedText(Windows):
    """Predict the hidden tokens of real text.

    Windows of T tokens, split as in `text`. Of each, max(1, round(.15 T)) places are drawn without replacement; each
    is replaced by the mask token (with probability .8) or by a token drawn from all (.1), or left (.1). Targets are the
    tokens themselves, and those places alone count. Training goes through the windows in an order shuffled anew for
    each epoch, and never repeats a mask; held-out masks are fixed.

    inputs, targets (0 where not counted), counted: (B, T). The mask token is the vocabulary's size, and no target.

    Args:
        corpus: a known text corpus. path: a file to use instead. length: T, in tokens. tokens: as for `text`.
    """

    role = "masked"
    difficulties: ClassVar = {
        "smoke": difficulty({"length": 128}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=1024, depth=2, heads=2),
        "small": difficulty({"length": 128}, 200_000, tokens=4e6, lr=3e-3, batch_tokens=2048, depth=2, heads=2),
        "paper": difficulty(
            {"corpus": "wikitext103", "length": 512, "tokens": "gpt2"},
            85_000_000,
            tokens=1e9,
            lr=1e-4,
            batch_tokens=131_072,
            depth=12,
            heads=12,
        ),
    }
    _bits, _ahead, _masks = "bits_per_masked_byte", 0, 1

    @property
    def places(self) -> int:
        """Places of a window that count."""
        return max(1, round(PORTION * self.length))

    def count(self, split: Split) -> int | None:
        """Whole windows of a held-out split; in training each comes again and again, masked elsewhere."""
        return None if split == "train" else self._windows(split)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        """The examples with these ids; in training, id i is window i mod n of epoch ⌊i / n⌋'s order."""
        key = seed if split == "train" else 0
        numbers = in_epochs(self.name, seed, ids, self._windows("train")) if split == "train" else ids
        window = self._window(split, numbers)
        chosen = Draws("masked_text", split, key, "places").sample(ids, self.length, self.places)
        fate = Draws("masked_text", split, key, "fates").uniform(ids, self.places)
        drawn = Draws("masked_text", split, key, "tokens").integers(ids, self.places, 0, self.vocab)
        true = np.take_along_axis(window, chosen, axis=1)
        shown = np.where(fate < 0.8, self.vocab, np.where(fate < 0.9, drawn, true))
        counted = np.zeros(window.shape, dtype=bool)
        np.put_along_axis(counted, chosen, True, axis=1)
        inputs = window.copy()
        np.put_along_axis(inputs, chosen, shown, axis=1)
        return Batch(inputs=inputs, targets=np.where(counted, window, 0), counted=counted)

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """Counts of the train split, each times p(what is shown | token) by the rule of masking."""
        test = self.examples("test", self.evaluation_ids("test", limit), 0)
        at = np.nonzero(test.counted)
        targets, shown = test.targets[at], test.inputs[at]
        sides = np.pad(test.inputs, ((0, 0), (1, 1)), constant_values=self.vocab)
        left, right = sides[:, :-2][at], sides[:, 2:][at]
        train = self._stream("train").astype(np.int64)
        alone = (np.bincount(train, minlength=self.vocab) + 1.0) / (len(train) + self.vocab)
        width = float(self.widths[targets].sum())
        unigram = self._surprise(np.log(alone)[None], targets, shown) / width
        found = [Baseline("unigram", unigram, "frequencies of the train split")]
        if self.vocab <= LARGEST:
            after = np.log(_bigrams(train, alone))
            known = np.concatenate([after, np.log(alone)[None]])
            onward = np.concatenate([after.T, np.zeros((1, self.vocab))])
            both = sum(
                self._surprise(known[left[part]] + onward[right[part]], targets[part], shown[part])
                for part in np.array_split(np.arange(len(targets)), 1 + len(targets) // 4096)
            )
            about = "p(token | the one before) p(the one behind | token), normalised; a masked neighbour tells nothing"
            found.append(Baseline("bigrams of both sides", both / width, about))
        return found

    def _surprise(self, prior: NDArray[np.float64], targets: Ids, shown: Ids) -> float:
        """Bits for all targets, from log p(token) up to a constant, (N or 1, V), and what is shown at the place."""
        p = np.exp(prior - prior.max(axis=1, keepdims=True))
        total, own = p.sum(axis=1), p[np.arange(len(targets)) % len(p), targets]
        seen = p[np.arange(len(targets)) % len(p), np.minimum(shown, self.vocab - 1)]
        random, same = 0.1 / self.vocab, 0.1
        open_ = shown < self.vocab
        joint = np.where(open_, own * (random + same * (shown == targets)), own)
        evidence = np.where(open_, random * total + same * seen, total)
        return float(np.log2(evidence / joint).sum())


def _bigrams(train: Ids, alone: NDArray[np.float64]) -> NDArray[np.float64]:
    """p(b | a), Witten and Bell's interpolation with `alone` (V,): shape (V, V)."""
    vocab = len(alone)
    n = np.bincount(train[:-1] * vocab + train[1:], minlength=vocab * vocab).reshape(vocab, vocab).astype(float)
    different = (n > 0).sum(axis=1, keepdims=True)
    return np.where(different > 0, (n + different * alone) / np.maximum(n.sum(1, keepdims=True) + different, 1), alone)
