"""Text that a language model writes by itself, token after token: greedy, or drawn from its probabilities.

A resumable model reads the prompt once and is extended by one token at a time: what recurrences keep stays as large as
it was, what attention keeps grows. Where a model reads `Model.longest` tokens at most, each token after those follows
from the last `longest` before it, which are read anew; so do those of a model that cannot be extended.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo.contract import Batch, Model, State, chosen, device_of, quiet

if TYPE_CHECKING:
    from zoo.tokenizers import Tokenizer

PIECE = 4096
"""Most tokens of a prompt that are read at once, so that a long one needs no more memory."""
LOGITS = 2**26
"""Most logits that reading a piece may give: a large vocabulary makes it shorter."""
CONTEXT = 64
"""Tokens at the end of a prompt that are decoded together with what follows it."""
PROBED = 1024
"""Tokens among which those of single bytes are looked for; vocabularies begin with them."""
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen.

    Args:
        temperature: what logits are divided by; 0 takes the likeliest token, of equals the first.
        top_k: only the k likeliest. top_p: of those, only the fewest whose probability, renormalised, reaches p.

    Raises:
        ValueError: one of them is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be at least 0 and finite, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")

    def probabilities(self, logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """Of each token, in float64.

        Raises:
            ValueError: there is a NaN among the logits, or none of them is finite.
        """
        x = logits.double()
        highest = x.max()
        if not highest.isfinite():
            raise ValueError("the model's logits are not finite: its training has diverged, or its precision overflows")
        if self.temperature == 0:
            return torch.zeros_like(x).index_fill(0, x.argmax(), 1.0)
        p = torch.softmax((x - highest) / self.temperature, dim=0)
        if self.top_k is None and self.top_p in (None, 1):
            return p
        ranked, ids = p.sort(descending=True, stable=True)
        if self.top_k is not None:
            ranked[self.top_k :] = 0
        if self.top_p is not None and self.top_p < 1:
            ranked = ranked / ranked.sum()
            ranked[ranked.cumsum(0) - ranked >= self.top_p] = 0
        return torch.zeros_like(p).scatter(0, ids, ranked / ranked.sum())

    def choose(self, logits: Float[Tensor, " V"], generator: torch.Generator) -> int:
        """A token: one number of `generator` against the cumulated probabilities."""
        p = self.probabilities(logits).cpu()
        if self.temperature == 0:
            return int(p.argmax())
        sums = p.cumsum(0)
        drawn = torch.rand((), dtype=torch.float64, generator=generator) * sums[-1]
        last = int(p.nonzero()[-1])
        return min(int(torch.searchsorted(sums, drawn, right=True)), last)


def generate(
    model: Model,
    prompt: Int[Tensor, " T"] | Sequence[int],
    *,
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Collection[int] = (),
) -> Iterator[int]:
    """The tokens a model writes after a prompt, one by one; an empty prompt stands for its tokenizer's `prefix`.

    No gradients; dropout is off while the model works, and every module's mode is left as found. What is drawn depends
    on `seed` alone, not on global generators. Tokens that the model's tokenizer does not have are never written.

    Args:
        tokens: how many at most. temperature, top_k, top_p: see `Sampling`.
        stop: tokens that end it, themselves not written.

    Raises:
        ValueError: an option is out of range, the model is no causal language model, or the prompt has other tokens.
    """
    how = Sampling(temperature, top_k, top_p)
    _check(model, tokens)
    ids = _ids(model, torch.as_tensor(prompt, dtype=torch.long).flatten().tolist())
    return _written(model, ids, tokens, how, seed, frozenset(stop))


def continue_batch(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | Sequence[int] = 0,
    done: Callable[[int, list[int]], bool] = lambda row, written: False,
    rows: int = 64,
) -> list[list[int]]:
    """What `generate` writes after each prompt, at most `rows` of equal length at once.

    A row ends, and leaves the batch, at its tokenizer's `end`, which is not written, or when `done` says so.

    Args:
        seed: for every row, or one for each: a row depends on its own alone, not on its company.
        done: given a row's number and all it has written, whenever it has written a token.

    Raises:
        ValueError: as `generate`; or there are not as many seeds as prompts.
    """
    how = Sampling(temperature, top_k, top_p)
    _check(model, tokens)
    seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(prompts) or rows < 1:
        raise ValueError(f"continue_batch: {len(prompts)} prompts, {len(seeds)} seeds, {rows} rows at once")
    read = [_ids(model, list(prompt)) for prompt in prompts]
    alike: dict[int, list[int]] = defaultdict(list)
    for row, ids in enumerate(read):
        alike[len(ids)].append(row)
    written: list[list[int]] = [[] for _ in prompts]
    generators = [torch.Generator().manual_seed(number) for number in seeds]
    for group in alike.values():
        for start in range(0, len(group), rows):
            _continue(model, group[start : start + rows], read, written, tokens, how, generators, done)
    return written


def stream_text(
    model: Model,
    prompt: str,
    *,
    tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Collection[str] = (),
) -> Iterator[str]:
    """The text a model writes after a prompt, in pieces that no later token changes.

    What may be the beginning of a character or of a text in `stop` is held back until that is decided. Together the
    pieces are what the tokenizer adds to the prompt when it decodes all tokens (some tokenizers drop a blank where a
    text begins), up to its `end` or the first of `stop`, which is left out.

    Raises:
        ValueError: as `generate`; the model has no tokenizer, or `stop` has an empty text.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("this model has no tokenizer: it cannot be given text")
    if isinstance(stop, str) or "" in stop:
        raise ValueError("stop must be texts, none of them empty")
    _check(model, tokens)
    ends = () if tokenizer.end is None else (tokenizer.end,)
    read = tokenizer.encode(prompt)
    ids = generate(model, read, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=ends)
    return _pieces(_texts(tokenizer, _context(tokenizer, read) if prompt else [], ids), tuple(stop))


def _check(model: Model, tokens: int) -> None:
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {tokens}")
    if model.role != "lm":
        raise ValueError(f"only language models write text; this model is for the role {model.role}")
    if model.traits.causal != "strict":
        raise ValueError(f"this model looks ahead (causal: {model.traits.causal}): it cannot write token by token")


def _ids(model: Model, prompt: list[int]) -> list[int]:
    if not prompt:
        if model.tokenizer is None:
            raise ValueError("an empty prompt needs a tokenizer, which knows what stands before a text")
        return [model.tokenizer.prefix]
    vocab = model.shape.vocab or model.shape.outputs
    other = next((token for token in prompt if not 0 <= token < vocab), None)
    if other is not None:
        raise ValueError(f"the prompt has the token {other}; this model has tokens 0 to {vocab - 1}")
    return prompt


def _written(
    model: Model, prompt: list[int], tokens: int, how: Sampling, seed: int, stop: frozenset[int]
) -> Iterator[int]:
    rows, generator = _Rows(model, [prompt]), torch.Generator().manual_seed(seed)
    for _ in range(tokens):
        token = how.choose(rows.logits()[0], generator)
        if token in stop:
            return
        yield token
        rows.append([token])


def _continue(
    model: Model,
    open_: list[int],
    read: list[list[int]],
    written: list[list[int]],
    tokens: int,
    how: Sampling,
    generators: list[torch.Generator],
    done: Callable[[int, list[int]], bool],
) -> None:
    """Fill `written` for the rows with these numbers, whose prompts are of one length."""
    end = None if model.tokenizer is None else model.tokenizer.end
    rows = _Rows(model, [read[row] for row in open_])
    for _ in range(tokens):
        logits, stay = rows.logits(), []
        for place, row in enumerate(open_):
            token = how.choose(logits[place], generators[row])
            if token == end:
                continue
            written[row].append(token)
            if not done(row, written[row]):
                stay.append(place)
        open_ = [open_[place] for place in stay]
        if not open_:
            return
        rows.append([written[row][-1] for row in open_], stay)


class _Rows:
    """Rows of equal length, what a model keeps of them, and the logits of the token that comes next."""

    def __init__(self, model: Model, prompts: list[list[int]]) -> None:
        self.model = model
        self.unread = torch.tensor(prompts, dtype=torch.long, device=device_of(model))
        self.longest = model.longest if model.traits.resumable else model.longest or model.shape.length
        self.window = None if self.longest is None else self.unread[:, -self.longest :]
        self.state: State | None = None
        if model.traits.resumable and self.unread.shape[1] <= (self.longest or math.inf):
            with quiet(model):
                self.state = model.init_state(len(prompts))

    def logits(self) -> Float[Tensor, "B V"]:
        """Of the tokens the model's tokenizer has."""
        known = None if self.model.tokenizer is None else self.model.tokenizer.vocab
        with quiet(self.model):
            return self._next()[:, :known]

    def _next(self) -> Float[Tensor, "B V"]:
        if self.state is None:
            return self.model(Batch(inputs=self.window))[:, -1]
        room = LOGITS // (len(self.unread) * self.model.shape.outputs)
        for piece in self.unread.split(min(PIECE, max(1, room)), dim=1):
            logits, self.state = self.model.extend(piece, self.state)
        return logits[:, -1]

    def append(self, tokens: list[int], rows: list[int] | None = None) -> None:
        """A token behind each of `rows`, of which there are all by default; the others leave."""
        self.unread = torch.tensor(tokens, dtype=torch.long, device=self.unread.device)[:, None]
        if self.window is not None and self.longest is not None:
            if self.window.shape[1] == self.longest:
                self.state = None
            kept = self.window if rows is None else self.window[rows]
            self.window = torch.cat([kept, self.unread], dim=1)[:, -self.longest :]
        if self.state is not None and rows is not None:
            self.state = chosen(self.state, torch.tensor(rows, device=self.unread.device))


def _context(tokenizer: Tokenizer, prompt: list[int]) -> list[int]:
    """The end of a prompt, from the beginning of a character on: what decodes an answer as the whole prompt would."""
    steps = CONTEXT
    while steps < len(prompt) and tokenizer.decode(prompt[-steps:]).startswith(UNKNOWN):
        steps *= 2
    return prompt[-steps:]


def _texts(tokenizer: Tokenizer, context: list[int], ids: Iterator[int]) -> Iterator[tuple[str, bool]]:
    """The text behind `context` so far that no further token changes, token by token; then all of it, and True."""
    written: list[int] = []
    before = tokenizer.decode(context) if context else ""
    probe = _byte(tokenizer)

    def decoded(*more: int) -> str:
        whole = tokenizer.decode([*context, *written, *more])
        # Broken bytes right behind the context can spoil its last character: then the answer is decoded alone.
        return whole[len(before) :] if whole.startswith(before) else tokenizer.decode([*written, *more])

    try:
        for token in ids:
            written.append(token)
            text = decoded()
            # Some decoders judge a run of bytes as a whole: sure is what one more byte leaves, which ends no character.
            sure = text if probe is None else _common(text, decoded(probe))
            yield sure.rstrip(UNKNOWN), False
        yield decoded() if written else "", True
    except (KeyError, IndexError):
        raise ValueError(f"the model wrote the token {written[-1]}, which its tokenizer does not have") from None


def _common(a: str, b: str) -> str:
    """What both begin with; looked for from the end, near which they differ."""
    return next(a[:n] for n in range(len(a), -1, -1) if b.startswith(a[:n]))


def _byte(tokenizer: Tokenizer) -> int | None:
    """A token that is one byte of a longer character; None where there is none."""
    for token in range(min(tokenizer.vocab, PROBED)):
        try:
            if tokenizer.decode([token]) == UNKNOWN:
                return token
        except (KeyError, IndexError):
            continue
    return None


def _pieces(texts: Iterator[tuple[str, bool]], stop: tuple[str, ...]) -> Iterator[str]:
    """The growing texts in pieces, up to the first text of `stop`."""
    told = 0
    for text, whole in texts:
        ends = [at for at in (text.find(one, told) for one in stop) if at >= 0]
        upto = min(ends) if ends else len(text) if whole else len(text) - _begun(text, stop)
        if upto > told:
            yield text[told:upto]
            told = upto
        if ends:
            return


def _begun(text: str, stop: tuple[str, ...]) -> int:
    """How many characters at the end of a text may be the beginning of one of `stop`."""
    most = max(map(len, stop), default=1) - 1
    longest = (n for n in range(min(most, len(text)), 0, -1) if any(one.startswith(text[-n:]) for one in stop))
    return next(longest, 0)
