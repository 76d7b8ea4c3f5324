"""How likely a language model finds token sequences: in nats, in batches, for any `Model` of the role `lm`.

What is asked, what is cut from it and in which windows a long text is read is lm-evaluation-harness's (its backend
`hf`): a model reads the last `max_length` of the tokens before a continuation's last one. How it is computed is ours:

- only what stands before a token of a continuation goes through the output head;
- what is read more than once (one request twice, answers of one token) is read once;
- where several continuations follow one context, and the model can resume, the context is read once and the state
  after it is handed to each of them;
- batches are made by length, under a budget of tokens.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from zoo.contract import Batch, Model, State, Unsupported, chosen, device_of, quiet, state_bytes

Pair: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""A context, of one token or more, and what continues it."""
_Cut: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
Score: TypeAlias = tuple[float, bool]
"""The log-likelihood of a continuation in nats, and whether each of its tokens is the likeliest one."""
Found: TypeAlias = Callable[[int, Score], None]
"""Told the index of a pair and its score as soon as it is known."""

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
    share: bool | None = None,
    found: Found | None = None,
) -> list[Score]:
    """The score of each continuation after its context. Nothing but rounding depends on what else is in the list.

    A continuation longer than `max_length` is read in windows (see `windows`); the score of an empty one is 0, true.

    Args:
        max_length: the most tokens read at once; None for what the model was built for.
        batch_tokens: tokens of a batch, padding included; None for `TOKENS`. batch_size: sequences of a batch.
        share: read a context once for all its continuations, where the model can; None for where that is faster.
        found: called once for each pair, in any order.

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
    parts: dict[_Cut, _Part] = {}
    asked = [_Asked(index, found) for index in range(len(pairs))]
    for pair, one in zip(pairs, asked, strict=True):
        for cut in _fitting(*pair, limit):
            part = parts.setdefault(cut, _Part(*cut))
            part.asked.append(one)
            one.left += 1
    _check(parts, model.shape)
    for one in asked:
        if not one.left:
            one.add((0.0, True), 0)
    with quiet(model):
        _Scorer(model, batch_tokens, batch_size).run(list(parts.values()), share)
    return [one.score for one in asked]


def rolling(model: Model, texts: Sequence[Sequence[int]], prefix: int, **options: Any) -> list[float]:
    """The log-likelihood of whole texts in nats, each behind the token `prefix`; options as `score`'s."""
    return [value for value, _ in score(model, [([prefix], text) for text in texts], **options)]


def windows(tokens: Sequence[int], length: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """The parts in which all tokens but the first are scored once each: contexts, and what follows them.

    A part has `length` + 1 tokens where there are as many, and all but its context are new. Only the last part, which
    ends with the text, has a context of more than one token.
    """
    for start in range(0, len(tokens) - 1, length):
        end = min(start + length, len(tokens) - 1)
        yield tokens[max(0, end - length) : start + 1], tokens[start + 1 : end + 1]


def _fitting(context: Sequence[int], continuation: Sequence[int], length: int) -> Iterator[_Cut]:
    """A request in parts that fit into `length`: one, whose context loses its beginning, or windows."""
    if not context:
        raise ValueError("a continuation needs a token before it: the context is empty")
    if len(continuation) > length:
        for before, after in windows([context[-1], *continuation], length):
            yield tuple(before), tuple(after)
    elif continuation:
        yield tuple(context[-(length + 1 - len(continuation)) :]), tuple(continuation)


def _check(parts: Any, shape: Any) -> None:
    """Raises a ValueError where a token is none of the model's."""
    vocab = min(shape.vocab, shape.outputs)
    worst = max((max(*context, *continuation) for context, continuation in parts), default=0)
    if worst >= vocab:
        raise ValueError(f"token {worst} is none of the {vocab} this model has; its tokenizer belongs to another model")


@dataclass(eq=False, slots=True)
class _Asked:
    """A pair, of which `left` parts have no score yet."""

    index: int
    found: Found | None
    left: int = 0
    score: Score = (0.0, True)

    def add(self, score: Score, parts: int = 1) -> None:
        """Take the score of a part; tell the sum when it was the last."""
        self.left -= parts
        self.score = (self.score[0] + score[0], self.score[1] and score[1])
        if not self.left and self.found is not None:
            self.found(self.index, self.score)


@dataclass(eq=False, slots=True)
class _Part:
    """A context and its continuation, which fit into what is read at once, and who asked for its score."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    asked: list[_Asked] = field(default_factory=list)

    @property
    def more(self) -> tuple[int, ...]:
        """What is read behind the context: the last token only has to be found likely."""
        return self.continuation[:-1]


@dataclass(eq=False, slots=True)
class _Row:
    """Tokens that are read, and the parts whose last `len(continuation)` steps they give."""

    tokens: tuple[int, ...]
    parts: list[_Part] = field(default_factory=list)
    group: int = 0
    """Which context of a batch comes before `tokens`."""
    after: ClassVar[int] = 0

    def __len__(self) -> int:
        return len(self.tokens)


Long = TypeVar("Long", _Row, "_Group")


class _Group:
    """A context and everything that continues it."""

    def __init__(self, context: tuple[int, ...], parts: list[_Part]) -> None:
        self.context, self.parts = context, parts
        self.rows = _rows((part.more, part) for part in parts)
        self.after = max(map(len, self.rows))
        """Tokens that are read behind the context, at most."""

    def __len__(self) -> int:
        return len(self.context)

    @property
    def worthwhile(self) -> bool:
        """Whether a context read once saves at least a quarter of the tokens."""
        return 4 * (len(self.rows) - 1) * len(self) >= self.size

    @property
    def size(self) -> int:
        """The tokens of all rows, each with the context before it."""
        return len(self.rows) * len(self) + sum(map(len, self.rows))


def _rows(read: Any) -> list[_Row]:
    """What is read, each once."""
    rows: dict[tuple[int, ...], _Row] = {}
    for tokens, part in read:
        rows.setdefault(tokens, _Row(tokens)).parts.append(part)
    return list(rows.values())


class _Scorer:
    """A model, how much it is given at once, and the two ways in which parts get their scores."""

    def __init__(self, model: Model, tokens: int | None, size: int | None) -> None:
        self.model, self.size = model, size
        self.device = device_of(model)
        self.tokens = tokens or TOKENS.get(self.device.type, TOKENS["cuda"])
        parts: Any = model  # what `zoo.blocks.heads.SequenceModel` has and other models may have
        self.head = getattr(parts, "head", None) if hasattr(parts, "encode") else None
        self.resume = getattr(parts, "resume", None) if self.head is not None else None
        self.step = max(1, LOGITS // model.shape.outputs)
        self.wide = min(self.tokens, self.step)  # where every step has its logits
        self.masks = self.resume is not None and model.traits.padding_safe

    def run(self, parts: list[_Part], share: bool | None) -> None:
        """Give every part its score."""
        traits = self.model.traits
        by_context = defaultdict(list)
        if share is not False and traits.resumable and traits.causal == "strict":
            for part in parts:
                by_context[part.context].append(part)
        groups = [_Group(context, found) for context, found in by_context.items() if len(found) > 1]
        groups = [group for group in groups if group.worthwhile]
        if share is None and len(groups) >= 4 * PROBED:
            self._try(groups)
        else:
            self._shared(groups)
        shared = {id(part) for group in groups for part in group.parts}
        self._whole([part for part in parts if id(part) not in shared])

    def _try(self, groups: list[_Group]) -> None:
        """Read some groups in one way and some in the other, and the rest in the way that took less time for a token.

        Sharing saves what is read, but recurrences that a convolution computes at once (S4) are slow from a state.
        """
        groups = sorted(groups, key=len)
        tried = groups[:: len(groups) // (2 * PROBED)][: 2 * PROBED]
        rest = [group for group in groups if group not in tried]
        ways: list[Callable[[list[_Group]], None]] = [self._apart, self._shared]
        spent = []
        for way, own in zip(ways, (tried[::2], tried[1::2]), strict=True):
            way(own[:1])  # what is compiled at first is not counted
            began = time.perf_counter()
            way(own[1:])
            spent.append((time.perf_counter() - began) / sum(group.size for group in own[1:]))
        ways[spent.index(min(spent))](rest)

    def _apart(self, groups: list[_Group]) -> None:
        self._whole([part for group in groups for part in group.parts])

    def _whole(self, parts: list[_Part]) -> None:
        """Read each context with its continuation."""
        rows = _rows((part.context + part.more, part) for part in parts)
        equal = self.model.traits.causal != "strict"  # where padding, which is the future, might be seen
        for batch in self._batches(rows, self.wide if self.head is None else self.tokens, equal=equal):
            inputs = self._padded([row.tokens for row in batch])
            features = self.model(Batch(inputs=inputs)) if self.head is None else self._encode(inputs)
            self._judge(features, batch, self.head)

    def _shared(self, groups: list[_Group]) -> None:
        """Read each context once, and from its state each of its continuations."""
        if not groups:
            return
        head, tokens = (None, self.wide) if self.resume is None else (self.head, self.tokens)
        most = STATES // max(1, state_bytes(self.model.init_state(1)))
        for batch in self._batches(groups, tokens, equal=not self.masks, most=max(1, most)):
            lengths = torch.tensor([len(group) for group in batch], device=self.device)
            inputs = self._padded([group.context for group in batch])
            valid = torch.arange(inputs.shape[1], device=self.device) < lengths[:, None]
            equal = len(batch[0]) == len(batch[-1])
            y, state = self._after(inputs, self.model.init_state(len(batch)), None if equal else valid)
            last = y[torch.arange(len(batch), device=self.device), lengths - 1]
            most = STATES // max(1, state_bytes(state) // len(batch))
            rows = [_Row(row.tokens, row.parts, at) for at, group in enumerate(batch) for row in group.rows]
            for some in self._batches(rows, tokens, most=max(1, most)):
                at = torch.tensor([row.group for row in some], device=self.device)
                features = last[at, None]
                if len(some[0]):
                    y, _ = self._after(self._padded([row.tokens for row in some]), chosen(state, at), None)
                    features = torch.cat([features, y], dim=1)
                self._judge(features, some, head, ahead=1)

    def _encode(self, inputs: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        features: Tensor = self.model.encode(inputs)  # type: ignore[operator]
        return features

    def _after(
        self, inputs: Int[Tensor, "B T"], state: State, valid: Bool[Tensor, "B T"] | None
    ) -> tuple[Tensor, State]:
        """Features (or logits, of a model that has none to show) behind a state, and the next state."""
        if self.resume is None:
            return self.model.extend(inputs, state)
        found: tuple[Tensor, State] = self.resume(inputs, state, valid)
        return found

    def _batches(
        self, items: list[Long], tokens: int, *, equal: bool = False, most: int | None = None
    ) -> Iterator[list[Long]]:
        """Items by length, the longest first, as many as `tokens` allow; of one length where they must be `equal`.

        What is read behind the padded items must fit too: some states count the padding (Hyena).
        """
        most, longest = min(self.size or len(items), most or len(items)), self.model.longest or math.inf
        batch: list[Long] = []
        for item in sorted(items, key=len, reverse=True):
            if batch and (
                len(batch) == most
                or (len(batch) + 1) * len(batch[0]) > tokens
                or (equal and len(item) != len(batch[0]))
                or len(batch[0]) + item.after > longest
            ):
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    def _padded(self, rows: list[tuple[int, ...]]) -> Int[Tensor, "B T"]:
        """Rows as one tensor, zeros behind the shorter ones."""
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.device)

    def _judge(
        self,
        features: Float[Tensor, "B T D"],
        rows: list[_Row],
        head: Callable[[Tensor], Tensor] | None,
        ahead: int = 0,
    ) -> None:
        """Score the parts of rows from what the model makes of them, `ahead` of which stands before a row's tokens."""
        parts = [(index, len(row) + ahead, part) for index, row in enumerate(rows) for part in row.parts]
        sizes = [len(part.continuation) for *_, part in parts]
        at = [index for (index, *_), size in zip(parts, sizes, strict=True) for _ in range(size)]
        steps = [step for (_, end, _), size in zip(parts, sizes, strict=True) for step in range(end - size, end)]
        tokens = torch.tensor([token for *_, part in parts for token in part.continuation], device=self.device)
        places = torch.tensor([at, steps], device=self.device)
        values, hits = [], []
        for (row, step), target in zip(places.split(self.step, dim=1), tokens.split(self.step), strict=True):
            counted = features[row, step]
            logits = counted if head is None else head(counted)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            values.append(torch.log_softmax(logits, 1).gather(1, target[:, None])[:, 0])
            hits.append(logits.argmax(1) == target)
        # Summed as lm-eval's hf does, in float32: at 1,000 nats another order is another fourth decimal.
        found, greedy = torch.cat(values).cpu(), torch.cat(hits).tolist()
        start = 0
        for (*_, part), size in zip(parts, sizes, strict=True):
            score = (float(found[start : start + size].sum()), all(greedy[start : start + size]))
            start += size
            for one in part.asked:
                one.add(score)
