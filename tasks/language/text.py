"""Language modelling: the next byte, character or subword of a text."""

from typing import ClassVar

import numpy as np

from tasks.base import Baseline, Ids, Split, difficulty
from tasks.baselines import ngram_bits, xz_bits_per_byte
from tasks.language import tokens as tokenised
from tasks.language.windows import Windows
from tasks.registry import register
from zoo.tokenizers import Tokenizer
from zoo.types import Batch


@register(
    paper="Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era, arXiv:2305.13048 (enwik8 at T = 1024; "
    "the setting of difficulty `paper`)",
    source="https://github.com/karpathy/char-rnn (splits by position, as there)",
    deviations=(
        "windows lie on a fixed grid, in shuffled order, where char models often train at random offsets",
        "5% of enwik8 are held out for testing, as is usual, but 2% and 3% for tuning and validation",
    ),
)
class Text(Windows):
    """Predict the next token of real text.

    A split is one contiguous stretch of the text (see `BORDERS`). Its example i is the window [i·T, i·T + T] of T+1
    tokens: inputs are all but the last, targets all but the first, both (B, T) int64, so that every token of a split
    but the first (and less than T at the end) is a target exactly once. The grid of windows is the same in every epoch.

    Whatever the tokens, scores are bits per UTF-8 byte of the targets, and so are those of the baselines.

    Args:
        corpus: a known text corpus. path: a file to use instead. length: T, in tokens.
        tokens: `bytes`; `characters`, the text's own code points, sorted; `gpt2`, byte-pair encoding with 50,257
            tokens; `rwkv_world`, the longest match among 65,529.

    Raises:
        DataError: the file at `path` is absent or empty, a corpus whose hash is not known was never fetched, or a
            split is shorter than one window. The last, and text that is not UTF-8, is found with `tokens` other than
            bytes only when the text is first read.
    """

    role = "lm"
    difficulties: ClassVar = {
        "smoke": difficulty({"length": 128}, 50_000, tokens=150_000, lr=3e-3, batch_tokens=1024, depth=2, heads=2),
        "small": difficulty({"length": 128}, 200_000, tokens=2e6, lr=3e-3, batch_tokens=1024, depth=2, heads=2),
        "paper": difficulty(
            {"corpus": "enwik8", "length": 1024},
            38_000_000,
            tokens=1e9,
            lr=6e-4,
            batch_tokens=16_384,
            depth=12,
            heads=8,
        ),
    }
    _bits, _ahead, _masks = "bits_per_byte", 1, 0

    @property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override]
        """That of its tokens."""
        return tokenised.tokenizer(self.card, self.tokens)

    def count(self, split: Split) -> int:
        return self._windows(split)

    def examples(self, split: Split, ids: Ids, seed: int) -> Batch:
        windows = self._window(split, ids)
        return Batch(inputs=windows[:, :-1], targets=windows[:, 1:])

    def baselines(self, limit: int | None = None) -> list[Baseline]:
        """n-gram models on the target bytes of the test examples, and xz on the whole test split. Takes some 15 s."""
        data, (begin, end) = self._data, self._span("train")
        bits = ngram_bits(data[begin:end], data, self._target_bytes(self.evaluation_ids("test", limit)), order=5)
        start, stop = self._span("test")
        xz = xz_bits_per_byte(data[begin:end].tobytes(), data[start:stop].tobytes())
        how = (
            "Witten-Bell interpolation, counted on the whole train split; its context reaches back over window borders"
        )
        found = [
            Baseline(name, float(bits[order - 1].mean()), f"{order - 1} bytes of context; {how}")
            for name, order in (("unigram", 1), ("bigram", 2), ("trigram", 3), ("5-gram", 5))
        ]
        about = "8 (|xz(train + test)| - |xz(train)|) / |test| at preset 9e, over the whole test split"
        return [*found, Baseline("xz", xz, about)]

    def _target_bytes(self, ids: Ids) -> Ids:
        """Where in the text the bytes lie that the targets of these test examples stand for."""
        ends = self._span("test")[0] + np.cumsum(self.widths[self._stream("test")])
        first = ids * self.length
        runs = zip(ends[first].tolist(), ends[first + self.length].tolist(), strict=True)
        return np.concatenate([np.arange(*run) for run in runs])
