"""Log-likelihoods of token sequences in nats, in batches, for any `Model` of the role `lm`.

Which tokens are read for a request, and the windows in which a long text is read, are lm-evaluation-harness's (its
backend `hf`): a model reads the last `max_length` of the tokens before a continuation's last one. How they are computed
is ours:

- only positions before a token of a continuation go through the output head;
- what is read more than once (one request twice, answers of one token) is read once;
- where several continuations follow one context, and the model can resume, the context is a shared prefix: it is read
  once, and the state after it is handed to each of them;
- batches are made by length, under a budget of tokens.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo.contract import Batch, Model, State, Unsupported, chosen, device_of, quiet, state_bytes

Pair: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""A context, of one token or more, and its continuation."""
Tokens: TypeAlias = tuple[int, ...]
Score: TypeAlias = tuple[float, bool]
"""The log-likelihood of a continuation in nats, and whether greedy decoding gives it."""
OnScore: TypeAlias = Callable[[int, Score], None]
"""Called with the index of a pair and its score as soon as it is known."""

TOKENS = {"cpu": 2**10, "cuda": 2**15}
"""Tokens of a batch, padding included, by device."""
LOGITS = 2**25
"""Logits at once."""
STATES = 2**28
"""Bytes of states at once."""
PROBED = 4
"""Contexts on which each of the two ways to read is timed, where there are four times as many."""


def score(
    model: Model,
    pairs: Sequence[Pair],
    *,
    max_length: int | None = None,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    share_prefixes: bool | None = None,
    on_score: OnScore = lambda pair, score: None,
) -> list[Score]:
    """Score each continuation after its context. Nothing but rounding depends on what else is in the list.

    A continuation longer than `max_length` is read in windows (see `windows`); the score of an empty one is 0, true.

    Args:
        max_length: the most tokens read at once; None for what the model was built for.
        batch_tokens: tokens of a batch, padding included; None for `TOKENS`. batch_size: sequences of a batch.
        share_prefixes: whether to read a context once for all its continuations, where the model can; None for
            whichever is faster.
        on_score: called once for each pair, in any order.

    Raises:
        Unsupported: not a causal language model.
        ValueError: an empty context, a token the model does not have, or a `max_length` it cannot read.
    """
    if model.role != "lm" or model.traits.causal == "no":
        raise Unsupported("only a causal language model says how likely a text is; this one has no next token")
    limit = model.shape.length if max_length is None else max_length
    if limit < 1 or limit > (model.longest or limit):
        most = f" and at most the {model.longest} tokens this model can read" if model.longest else ""
        raise ValueError(f"max_length must be at least 1{most}, got {limit}")
    parts, cut = [list(_fit(*pair, limit)) for pair in pairs], dict[tuple[Tokens, Tokens], _Window]()
    for index, own in enumerate(parts):
        for part in own:
            cut.setdefault(part, _Window(*part)).pairs.append(index)
    _check_tokens(cut, model)
    scores = _Scores([len(own) for own in parts], on_score)
    with quiet(model):
        _Scorer(model, scores, batch_tokens, batch_size).run(list(cut.values()), share_prefixes)
    return scores.sums


def windows(tokens: Sequence[int], length: int) -> Iterator[Pair]:
    """Cut a text into contexts and what follows them, so that all tokens but the first are scored once each.

    A window has `length` + 1 tokens where there are as many, and all but its context are new. Only the last window,
    which ends with the text, has a context of more than one token.
    """
    for start in range(0, len(tokens) - 1, length):
        end = min(start + length, len(tokens) - 1)
        yield tokens[max(0, end - length) : start + 1], tokens[start + 1 : end + 1]


def _fit(context: Sequence[int], continuation: Sequence[int], length: int) -> Iterator[tuple[Tokens, Tokens]]:
    """Cut a request to what fits into `length`: one part, whose context loses its beginning, or windows."""
    if not context:
        raise ValueError("a continuation needs a token before it: the context is empty")
    if len(continuation) > length:
        for before, after in windows([context[-1], *continuation], length):
            yield tuple(before), tuple(after)
    elif continuation:
        yield tuple(context[-(length + 1 - len(continuation)) :]), tuple(continuation)


def _check_tokens(cut: Iterable[Pair], model: Model) -> None:
    """Raise ValueError for a token that the model does not have."""
    vocab = min(model.shape.vocab or model.shape.outputs, model.shape.outputs)
    worst = max((max(*context, *continuation) for context, continuation in cut), default=0)
    if worst >= vocab:
        raise ValueError(f"token {worst} is none of the {vocab} this model has; its tokenizer belongs to another model")


class _Scores:
    """The sums over the windows of each pair."""

    def __init__(self, windows: Sequence[int], on_score: OnScore) -> None:
        self.sums: list[Score] = [(0.0, True)] * len(windows)
        self.missing = list(windows)
        """How many windows of each pair have no score yet."""
        self.on_score = on_score
        for pair, missing in enumerate(windows):
            if not missing:
                on_score(pair, self.sums[pair])

    def add(self, pair: int, score: Score) -> None:
        """Add the score of a window; report the sum when it was the last."""
        value, greedy = self.sums[pair]
        self.sums[pair] = (value + score[0], greedy and score[1])
        self.missing[pair] -= 1
        if not self.missing[pair]:
            self.on_score(pair, self.sums[pair])


@dataclass(eq=False, slots=True)
class _Window:
    """A context and its continuation, which fit into what is read at once, and the pairs that they are a part of."""

    context: Tokens
    continuation: Tokens
    pairs: list[int] = field(default_factory=list)

    @property
    def read(self) -> Tokens:
        """What is read behind the context: all but the last token, which is only scored."""
        return self.continuation[:-1]


@dataclass(eq=False, slots=True)
class _Row:
    """Tokens to read, and the windows whose scores their last positions give."""

    tokens: Tokens
    windows: list[_Window] = field(default_factory=list)
    prefix: int = 0
    """Which prefix of a batch comes before `tokens`."""
    read_after: ClassVar[int] = 0

    def __len__(self) -> int:
        return len(self.tokens)


class _Prefix:
    """A context and everything that continues it."""

    def __init__(self, context: Tokens, windows: list[_Window]) -> None:
        self.context, self.windows = context, windows
        self.rows = _rows((window.read, window) for window in windows)
        self.read_after = max(map(len, self.rows))
        """The most tokens that are read behind the context."""
        self.tokens = len(self.rows) * len(context) + sum(map(len, self.rows))
        """Of all rows, each with the context before it."""
        self.worth_sharing = 4 * (len(self.rows) - 1) * len(context) >= self.tokens
        """Whether a context read once saves at least a quarter of the tokens."""

    def __len__(self) -> int:
        return len(self.context)


Item = TypeVar("Item", _Row, _Prefix)


def _rows(read: Iterable[tuple[Tokens, _Window]]) -> list[_Row]:
    """Rows of tokens to read, each once."""
    rows: dict[Tokens, _Row] = {}
    for tokens, window in read:
        rows.setdefault(tokens, _Row(tokens)).windows.append(window)
    return list(rows.values())


class _Scorer:
    """Scores windows with one model, in batches, in either of two ways."""

    def __init__(self, model: Model, scores: _Scores, batch_tokens: int | None, batch_size: int | None) -> None:
        self.model, self.scores, self.batch_size = model, scores, batch_size
        self.device = device_of(model)
        self.batch_tokens = batch_tokens or TOKENS.get(self.device.type, TOKENS["cuda"])
        # What `zoo.blocks.heads.SequenceModel` has, and other models may have:
        self.encode: Any = getattr(model, "encode", None)
        self.head: Any = None if self.encode is None else getattr(model, "head", None)
        self.resume: Any = None if self.head is None else getattr(model, "resume", None)
        self.positions = max(1, LOGITS // model.shape.outputs)
        """Positions whose logits are computed at once."""
        self.batch_logits = min(self.batch_tokens, self.positions)
        """Tokens of a batch where every position has its logits."""

    def run(self, windows: list[_Window], share: bool | None) -> None:
        """Score every window."""
        traits, by_context = self.model.traits, defaultdict(list)
        if share is not False and traits.resumable and traits.causal == "strict":
            for window in windows:
                by_context[window.context].append(window)
        prefixes = [_Prefix(context, found) for context, found in by_context.items() if len(found) > 1]
        prefixes = [prefix for prefix in prefixes if prefix.worth_sharing]
        if share is None and len(prefixes) >= 4 * PROBED:
            self._score_the_faster_way(prefixes)
        else:
            self._score_shared(prefixes)
        shared = {id(window) for prefix in prefixes for window in prefix.windows}
        self._score_whole([window for window in windows if id(window) not in shared])

    def _score_the_faster_way(self, prefixes: list[_Prefix]) -> None:
        """Time both ways on some prefixes, and score the rest in the one that took less time for a token.

        Sharing saves what is read, but recurrences that a convolution computes at once (S4) are slow from a state.
        """

        def score_unshared(prefixes: list[_Prefix]) -> None:
            self._score_whole([window for prefix in prefixes for window in prefix.windows])

        prefixes = sorted(prefixes, key=len)
        probed = prefixes[:: len(prefixes) // (2 * PROBED)][: 2 * PROBED]
        ways, seconds = (score_unshared, self._score_shared), []
        for way, own in zip(ways, (probed[::2], probed[1::2]), strict=True):
            way(own[:1])  # compilation is not timed
            began = time.perf_counter()
            way(own[1:])
            seconds.append((time.perf_counter() - began) / sum(prefix.tokens for prefix in own[1:]))
        ways[seconds.index(min(seconds))]([prefix for prefix in prefixes if prefix not in probed])

    def _score_whole(self, windows: list[_Window]) -> None:
        """Read each context with its continuation."""
        rows = _rows((window.context + window.read, window) for window in windows)
        equal = self.model.traits.causal != "strict"  # where padding, which is the future, might be seen
        for batch in self._batches(rows, self.batch_logits if self.head is None else self.batch_tokens, equal=equal):
            inputs = self._padded([row.tokens for row in batch])
            features = self.model(Batch(inputs=inputs)) if self.head is None else self.encode(inputs)
            self._score_rows(features, batch, self.head)

    def _score_shared(self, prefixes: list[_Prefix]) -> None:
        """Read each context once, and from its state each of its continuations."""
        if not prefixes:
            return
        head, tokens = (None, self.batch_logits) if self.resume is None else (self.head, self.batch_tokens)
        masks = self.resume is not None and self.model.traits.padding_safe
        states = STATES // max(1, state_bytes(self.model.init_state(1)))
        for batch in self._batches(prefixes, tokens, equal=not masks, most=states):
            lengths = torch.tensor([len(prefix) for prefix in batch], device=self.device)
            inputs = self._padded([prefix.context for prefix in batch])
            valid = torch.arange(inputs.shape[1], device=self.device) < lengths[:, None]
            padded = len(batch[-1]) < len(batch[0])
            y, state = self._extend(inputs, self.model.init_state(len(batch)), valid if padded else None)
            last = y[torch.arange(len(batch), device=self.device), lengths - 1]
            rows = [_Row(row.tokens, row.windows, at) for at, prefix in enumerate(batch) for row in prefix.rows]
            states_now = STATES // max(1, state_bytes(state) // len(batch))
            for some in self._batches(rows, tokens, most=states_now):
                at = torch.tensor([row.prefix for row in some], device=self.device)
                features = last[at, None]
                if len(some[0]):
                    y, _ = self._extend(self._padded([row.tokens for row in some]), chosen(state, at))
                    features = torch.cat([features, y], dim=1)
                self._score_rows(features, some, head, ahead=1)

    def _extend(self, inputs: Int[Tensor, "B T"], state: State, valid: Any = None) -> tuple[Tensor, State]:
        """Features (or logits, of a model that shows no features) behind a state, and the next state."""
        if self.resume is None:
            return self.model.extend(inputs, state)
        features, state = self.resume(inputs, state, valid)
        return features, state

    def _batches(
        self, items: list[Item], tokens: int, *, equal: bool = False, most: int | None = None
    ) -> Iterator[list[Item]]:
        """Items by length, the longest first, as many as `tokens` allow; of one length where they must be `equal`.

        What is read behind the padded items must fit too: some states count the padding (Hyena).
        """
        most = min(self.batch_size or len(items), len(items) if most is None else max(1, most))
        longest, batch = self.model.longest or math.inf, list[Item]()
        for item in sorted(items, key=len, reverse=True):
            if batch and (
                len(batch) == most
                or (len(batch) + 1) * len(batch[0]) > tokens
                or (equal and len(item) != len(batch[0]))
                or len(batch[0]) + item.read_after > longest
            ):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _padded(self, rows: list[Tokens]) -> Int[Tensor, "B T"]:
        """Rows as one tensor, zeros behind the shorter ones."""
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.device)

    def _score_rows(
        self,
        features: Float[Tensor, "B T D"],
        rows: list[_Row],
        head: Callable[[Tensor], Tensor] | None,
        ahead: int = 0,
    ) -> None:
        """Score the windows of rows from their features, `ahead` of which stand before a row's own tokens."""
        windows, places = [], []
        for at, row in enumerate(rows):
            for window in row.windows:
                start = len(row) + ahead - len(window.continuation)
                places += [(at, start + i, token) for i, token in enumerate(window.continuation)]
                windows.append(window)
        values, hits = [], []
        for at, step, target in (part.T for part in torch.tensor(places, device=self.device).split(self.positions)):
            logits = features[at, step] if head is None else head(features[at, step])
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            values.append(torch.log_softmax(logits, 1).gather(1, target[:, None])[:, 0])
            hits.append(logits.argmax(1) == target)
        sizes = [len(window.continuation) for window in windows]
        # Summed as lm-eval's hf does, in float32: at 1,000 nats another order is another fourth decimal.
        for window, value, hit in zip(
            windows, torch.cat(values).cpu().split(sizes), torch.cat(hits).cpu().split(sizes), strict=True
        ):
            for pair in window.pairs:
                self.scores.add(pair, (float(value.sum()), bool(hit.all())))
