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

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from zoo.contract import Batch, Model, State, Unsupported, chosen, device_of, quiet, state_bytes

Pair: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""A context, of one token or more, and its continuation."""
Tokens: TypeAlias = tuple[int, ...]
Score: TypeAlias = tuple[float, bool]
"""The log-likelihood of a continuation in nats, and whether greedy decoding gives it."""
OnScore: TypeAlias = Callable[[int, Score], None]
"""Called with the index of a pair and its score as soon as it is known."""
Head: TypeAlias = Callable[[Tensor], Tensor]

TOKENS = {"cpu": 2**10, "cuda": 2**15}
"""Tokens of a batch, padding included, by device."""
LOGITS = 2**25
"""Logits at once."""
STATES = 2**28
"""Bytes of states at once."""


def score(
    model: Model,
    pairs: Sequence[Pair],
    *,
    max_length: int | None = None,
    batch_tokens: int | None = None,
    batch_size: int | None = None,
    share_prefixes: bool = True,
    on_score: OnScore = lambda pair, score: None,
) -> list[Score]:
    """Score each continuation after its context. Nothing but rounding depends on what else is in the list.

    A continuation longer than `max_length` is read in lm_eval's windows; the score of an empty one is 0, true.

    Args:
        max_length: the most tokens read at once; None for what the model was built for.
        batch_tokens: tokens of a batch, padding included; None for `TOKENS`. batch_size: sequences of a batch.
        share_prefixes: whether to read a context once for all its continuations, where the model can and that saves a
            quarter of the tokens.
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
    sums: list[Score] = [(0.0, True)] * len(pairs)
    missing, cut = [0] * len(pairs), dict[tuple[Tokens, Tokens], _Window]()
    for index, pair in enumerate(pairs):
        for part in _fit(*pair, limit):
            cut.setdefault(part, _Window(*part)).pairs.append(index)
            missing[index] += 1
        if not missing[index]:
            on_score(index, sums[index])
    _check_tokens(cut, model)
    with quiet(model):
        for window, score in _Scorer(model, batch_tokens, batch_size).scores(list(cut.values()), share_prefixes):
            for index in window.pairs:
                sums[index] = (sums[index][0] + score[0], sums[index][1] and score[1])
                missing[index] -= 1
                if not missing[index]:
                    on_score(index, sums[index])
    return sums


def _fit(context: Sequence[int], continuation: Sequence[int], length: int) -> Iterator[tuple[Tokens, Tokens]]:
    """Cut a request to what fits into `length`: one part, whose context loses its beginning, or windows."""
    if not context:
        raise ValueError("a continuation needs a token before it: the context is empty")
    if len(continuation) > length:
        for window in get_rolling_token_windows(list(continuation), context[-1], length, 1):
            before, after = make_disjoint_window(window)
            yield tuple(before), tuple(after)
    elif continuation:
        yield tuple(context[-(length + 1 - len(continuation)) :]), tuple(continuation)


def _check_tokens(cut: Iterable[Pair], model: Model) -> None:
    """Raise ValueError for a token that the model does not have."""
    vocab = min(model.shape.vocab or model.shape.outputs, model.shape.outputs)
    worst = max((max(*context, *continuation) for context, continuation in cut), default=0)
    if worst >= vocab:
        raise ValueError(f"token {worst} is none of the {vocab} this model has; its tokenizer belongs to another model")


@dataclass(eq=False, slots=True)
class _Window:
    """A context and its continuation, which fit into what is read at once, and the pairs that they are a part of."""

    context: Tokens
    continuation: Tokens
    pairs: list[int] = field(default_factory=list)


class _Row(NamedTuple):
    """Tokens to read, and windows: those that end with them and one token more, or those that have them as context."""

    tokens: Tokens
    windows: list[_Window]
    prefix: int = 0
    """Which prefix of a batch comes before `tokens`."""


def _rows(windows: Iterable[_Window], read: Callable[[_Window], Tokens]) -> list[_Row]:
    """Rows of the tokens that are read of windows, each once."""
    found: dict[Tokens, list[_Window]] = defaultdict(list)
    for window in windows:
        found[read(window)].append(window)
    return [_Row(tokens, own) for tokens, own in found.items()]


def _continued(prefix: _Row) -> list[_Row]:
    """What is read behind a context: all of each continuation but its last token, which is only scored."""
    return _rows(prefix.windows, lambda window: window.continuation[:-1])


def _worth_sharing(prefix: _Row) -> bool:
    """Whether a context read once for all that continues it saves at least a quarter of the tokens."""
    rows, context = _continued(prefix), len(prefix.tokens)
    return 4 * (len(rows) - 1) * context >= len(rows) * context + sum(len(row.tokens) for row in rows)


class _Scorer:
    """Scores windows with one model, in batches, in either of two ways."""

    def __init__(self, model: Model, batch_tokens: int | None, batch_size: int | None) -> None:
        self.model, self.batch_size = model, batch_size
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

    def scores(self, windows: list[_Window], share: bool) -> Iterator[tuple[_Window, Score]]:
        """The score of every window, in any order."""
        traits, prefixes = self.model.traits, list[_Row]()
        if share and traits.resumable and traits.causal == "strict":
            prefixes = [prefix for prefix in _rows(windows, lambda window: window.context) if _worth_sharing(prefix)]
        yield from self._score_shared(prefixes)
        shared = {id(window) for prefix in prefixes for window in prefix.windows}
        yield from self._score_whole([window for window in windows if id(window) not in shared])

    def _score_whole(self, windows: list[_Window]) -> Iterator[tuple[_Window, Score]]:
        """Read each context with its continuation."""
        rows = _rows(windows, lambda window: window.context + window.continuation[:-1])
        equal = self.model.traits.causal != "strict"  # where padding, which is the future, might be seen
        for batch in self._batches(rows, self.batch_logits if self.head is None else self.batch_tokens, equal=equal):
            inputs = self._padded(batch)
            features = self.model(Batch(inputs=inputs)) if self.head is None else self.encode(inputs)
            yield from self._score_rows(features, batch, self.head)

    def _score_shared(self, prefixes: list[_Row]) -> Iterator[tuple[_Window, Score]]:
        """Read each context once, and from its state each of its continuations."""
        if not prefixes:
            return
        head, tokens = (None, self.batch_logits) if self.resume is None else (self.head, self.batch_tokens)
        masks = self.resume is not None and self.model.traits.padding_safe
        states = STATES // max(1, state_bytes(self.model.init_state(1)))
        for batch in self._batches(prefixes, tokens, equal=not masks, most=states, continued=True):
            lengths = torch.tensor([len(prefix.tokens) for prefix in batch], device=self.device)
            inputs = self._padded(batch)
            valid = torch.arange(inputs.shape[1], device=self.device) < lengths[:, None]
            y, state = self._extend(inputs, self.model.init_state(len(batch)), None if valid.all() else valid)
            last = y[torch.arange(len(batch), device=self.device), lengths - 1]
            rows = [row._replace(prefix=at) for at, prefix in enumerate(batch) for row in _continued(prefix)]
            states_now = STATES // max(1, state_bytes(state) // len(batch))
            for some in self._batches(rows, tokens, most=states_now):
                at = torch.tensor([row.prefix for row in some], device=self.device)
                features = last[at, None]
                if some[0].tokens:
                    y, _ = self._extend(self._padded(some), chosen(state, at))
                    features = torch.cat([features, y], dim=1)
                yield from self._score_rows(features, some, head, ahead=1)

    def _extend(self, inputs: Int[Tensor, "B T"], state: State, valid: Any = None) -> tuple[Tensor, State]:
        """Features (or logits, of a model that shows no features) behind a state, and the next state."""
        if self.resume is None:
            return self.model.extend(inputs, state)
        features, state = self.resume(inputs, state, valid)
        return features, state

    def _batches(
        self, rows: list[_Row], tokens: int, *, equal: bool = False, most: int | None = None, continued: bool = False
    ) -> Iterator[list[_Row]]:
        """Rows by length, the longest first, as many as `tokens` allow; of one length where they must be `equal`.

        Where they are `continued`, what is read behind the padded rows must fit too: some states count the padding
        (Hyena).
        """
        most = min(self.batch_size or len(rows), len(rows) if most is None else max(1, most))
        longest, batch = self.model.longest or math.inf, list[_Row]()
        for row in sorted(rows, key=lambda row: len(row.tokens), reverse=True):
            length = len(batch[0].tokens) if batch else 0
            behind = max(len(window.continuation) for window in row.windows) - 1 if continued else 0
            if batch and (
                len(batch) == most
                or (len(batch) + 1) * length > tokens
                or (equal and len(row.tokens) != length)
                or length + behind > longest
            ):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _padded(self, rows: list[_Row]) -> Int[Tensor, "B T"]:
        """The tokens of rows, zeros behind the shorter ones."""
        longest = max(len(row.tokens) for row in rows)
        return torch.tensor([[*row.tokens, *[0] * (longest - len(row.tokens))] for row in rows], device=self.device)

    def _score_rows(
        self, features: Float[Tensor, "B T D"], rows: list[_Row], head: Head | None, ahead: int = 0
    ) -> Iterator[tuple[_Window, Score]]:
        """Score the windows of rows from their features, `ahead` of which stand before a row's own tokens."""
        windows, places = [], []
        for at, row in enumerate(rows):
            for window in row.windows:
                start = len(row.tokens) + ahead - len(window.continuation)
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
        parts = zip(torch.cat(values).cpu().split(sizes), torch.cat(hits).cpu().split(sizes), strict=True)
        for window, (value, hit) in zip(windows, parts, strict=True):
            yield window, (float(value.sum()), bool(hit.all()))
