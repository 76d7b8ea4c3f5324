"""Autoregressive generation: a language model continues a prompt token by token, greedily or by sampling.

A resumable model reads the prompt once and is then extended by one token at a time. A model that cannot be extended,
or that has reached its longest sequence (`Model.longest`), reads the last window of tokens again for each new one.
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
"""The most tokens of a prompt that are read at once, which bounds memory."""
LOGITS = 2**26
"""The most logits that one piece may give: with a large vocabulary pieces are shorter."""
CONTEXT = 64
"""Tokens at the end of a prompt that are decoded together with what follows it."""
PROBED = 1024
"""The number of tokens among which a single byte is looked for; vocabularies begin with them."""
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Sampling:
    """Options for choosing the next token.

    Args:
        temperature: divides the logits; 0 takes the most likely token, the first one of equals.
        top_k: keeps the k most likely tokens.
        top_p: keeps, of those, the fewest whose renormalised probability reaches p.

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
        """The probability of each token, in float64.

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
        """A token, by comparing one random number with the cumulative probabilities."""
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
    """Generate the tokens that follow a prompt, one by one; an empty prompt stands for the tokenizer's `prefix`.

    Gradients and dropout are off, and the mode of every module is restored. Samples depend on `seed` alone, not on
    global generators. Tokens that the model's tokenizer does not have are never generated. See `Sampling` for
    `temperature`, `top_k` and `top_p`.

    Args:
        tokens: the most tokens to generate.
        stop: tokens that end generation and are not returned.

    Raises:
        ValueError: an option is out of range, the model is no causal language model, or the prompt has other tokens.
    """
    sampling = Sampling(temperature, top_k, top_p)
    _check(model, tokens)
    ids = _ids(model, torch.as_tensor(prompt, dtype=torch.long).flatten().tolist())
    generator = torch.Generator().manual_seed(seed)
    return (token for _, token in _stream(model, {0: ids}, tokens, sampling, [generator], frozenset(stop)))


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
    """Generate for several prompts what `generate` gives for each, in batches of up to `rows` prompts of equal length.

    A row leaves the batch at its tokenizer's `end`, which is not returned, or when `done` returns True.

    Args:
        seed: one for all rows or one for each; a row depends on its own seed alone, not on the other rows.
        done: called with a row's number and its tokens so far after each new token.

    Raises:
        ValueError: as `generate`; or there are not as many seeds as prompts.
    """
    sampling = Sampling(temperature, top_k, top_p)
    _check(model, tokens)
    seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
    if len(seeds) != len(prompts) or rows < 1:
        raise ValueError(f"continue_batch: {len(prompts)} prompts, {len(seeds)} seeds, {rows} rows at once")
    read = [_ids(model, list(prompt)) for prompt in prompts]
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, ids in enumerate(read):
        by_length[len(ids)].append(row)
    written: list[list[int]] = [[] for _ in prompts]
    generators, ends = [torch.Generator().manual_seed(number) for number in seeds], _ends(model)
    for group in by_length.values():
        for start in range(0, len(group), rows):
            part = {row: read[row] for row in group[start : start + rows]}
            for row, token in _stream(model, part, tokens, sampling, generators, ends, done):
                written[row].append(token)
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
    """Stream the text that follows a prompt, in pieces that no later token changes.

    The possible beginning of a character or of a text in `stop` is held back until it is decided. Together the pieces
    are what decoding all tokens adds to the prompt (some tokenizers drop a blank at the beginning of a text), up to the
    tokenizer's `end` or the first of `stop`, which is left out.

    Raises:
        ValueError: as `generate`; the model has no tokenizer, or `stop` has an empty text.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("this model has no tokenizer: it cannot be given text")
    if isinstance(stop, str) or "" in stop:
        raise ValueError("stop must be texts, none of them empty")
    read = tokenizer.encode(prompt)
    ends = _ends(model)
    ids = generate(model, read, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=ends)
    return _pieces(_texts(tokenizer, _context(tokenizer, read) if prompt else [], ids), tuple(stop))


def _ends(model: Model) -> tuple[int, ...]:
    """The token that ends a text, if the model's tokenizer has one."""
    end = None if model.tokenizer is None else model.tokenizer.end
    return () if end is None else (end,)


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


def _stream(
    model: Model,
    prompts: dict[int, list[int]],
    tokens: int,
    sampling: Sampling,
    generators: list[torch.Generator],
    stop: Collection[int],
    done: Callable[[int, list[int]], bool] = lambda row, written: False,
) -> Iterator[tuple[int, int]]:
    """Each new token and the number of its row; the rows' prompts have one length."""
    rows, open_ = _Rows(model, list(prompts.values())), list(prompts)
    written: dict[int, list[int]] = {row: [] for row in prompts}
    for _ in range(tokens):
        logits, stay = rows.logits(), []
        for place, row in enumerate(open_):
            token = sampling.choose(logits[place], generators[row])
            if token in stop:
                continue
            written[row].append(token)
            yield row, token
            if not done(row, written[row]):
                stay.append(place)
        everyone, open_ = len(stay) == len(open_), [open_[place] for place in stay]
        if not open_:
            return
        rows.append([written[row][-1] for row in open_], None if everyone else stay)


class _Rows:
    """Rows of equal length with the model's state, and the logits of their next token."""

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
        """The logits of the next token, for the tokens that the tokenizer has."""
        known = None if self.model.tokenizer is None else self.model.tokenizer.vocab
        most = LOGITS // (len(self.unread) * self.model.shape.outputs)
        with quiet(self.model):
            if self.state is None:
                return self.model(Batch(inputs=self.window))[:, -1, :known]
            for piece in self.unread.split(min(PIECE, max(1, most)), dim=1):
                logits, self.state = self.model.extend(piece, self.state)
        return logits[:, -1, :known]

    def append(self, tokens: list[int], rows: list[int] | None = None) -> None:
        """Append a token to each of `rows`, by default all; the other rows leave the batch."""
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
    """After each token, the decoded text that no further token changes, and False; at last all text, and True."""
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
    """The common prefix, searched from the end, near which the two differ."""
    return next(a[:n] for n in range(len(a), -1, -1) if b.startswith(a[:n]))


def _byte(tokenizer: Tokenizer) -> int | None:
    """A token that is one byte of a longer character, if there is one."""
    for token in range(min(tokenizer.vocab, PROBED)):
        try:
            if tokenizer.decode([token]) == UNKNOWN:
                return token
        except (KeyError, IndexError):
            continue
    return None


def _pieces(texts: Iterator[tuple[str, bool]], stop: tuple[str, ...]) -> Iterator[str]:
    """Cut the growing text into pieces, up to the first text of `stop`."""
    sent = 0
    for text, whole in texts:
        ends = [at for at in (text.find(one, sent) for one in stop) if at >= 0]
        upto = min(ends) if ends else len(text) if whole else len(text) - _begun(text, stop)
        if upto > sent:
            yield text[sent:upto]
            sent = upto
        if ends:
            return


def _begun(text: str, stop: tuple[str, ...]) -> int:
    """The number of characters at the end of a text that may be the beginning of one of `stop`."""
    most = max(map(len, stop), default=1) - 1
    longest = (n for n in range(min(most, len(text)), 0, -1) if any(one.startswith(text[-n:]) for one in stop))
    return next(longest, 0)
