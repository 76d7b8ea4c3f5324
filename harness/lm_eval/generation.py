"""Continuations as lm_eval's tasks want them: how tokens are chosen, and where a text ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from harness.errors import UserError
from zoo.contract import Model
from zoo.registry import nearest
from zoo.tokenizers import Tokenizer

TOKENS = 256
"""Tokens that are generated where a task does not say how many; half of `max_length` where that is too short."""
ROWS = 64
"""Prompts of one length that are continued at once."""
KNOWN = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p")


@dataclass(frozen=True)
class GenerationOptions:
    """How a task wants its continuations."""

    until: tuple[str, ...]
    tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None

    @classmethod
    def parse(cls, kwargs: dict[str, Any], max_length: int) -> GenerationOptions:
        """Read lm_eval's `generation_kwargs`; a UserError names an option that is not known here."""
        default = TOKENS if max_length > TOKENS else max(1, max_length // 2)
        rest: dict[str, Any] = {**normalize_gen_kwargs(kwargs, default)}
        until, tokens, sample, temperature, top_k, top_p = (rest.pop(key, None) for key in KNOWN)
        if rest.pop("num_beams", 1) != 1:
            raise UserError("num_beams: continuations are made one token after another, without a beam")
        for name in rest:
            raise UserError(f"generation_kwargs: unknown option {name!r}{nearest(name, KNOWN)}")
        if tokens < 1:
            raise UserError(f"max_gen_toks must be at least 1, got {tokens}")
        return cls(
            until=tuple(until),
            tokens=tokens,
            temperature=float(sample) if temperature is None else float(temperature),
            top_k=int(top_k) if top_k else None,
            top_p=float(top_p) if top_p is not None and float(top_p) < 1 else None,
        )


def continue_prompts(
    model: Model, tokenizer: Tokenizer, prompts: dict[int, list[int]], options: GenerationOptions, rows: int | None
) -> list[str]:
    """The text behind each prompt, up to the end of the text or the first stop string.

    What is drawn depends on torch's own seed and on a prompt's number, not on the other prompts.
    """
    from zoo.generate import continue_batch

    end = [] if tokenizer.end is None else [tokenizer.decode([tokenizer.end])]
    stops = [stop for stop in (*options.until, *end) if stop]
    reach = max((len(stop.encode()) for stop in stops), default=0) + 4  # the first token may be half a character

    def done(row: int, written: list[int]) -> bool:
        text = tokenizer.decode(written[-reach:]) if stops else ""
        return any(stop in text for stop in stops)

    written = continue_batch(
        model,
        list(prompts.values()),
        tokens=options.tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        seed=[(torch.initial_seed() + number) % 2**63 for number in prompts],
        done=done,
        rows=rows or ROWS,
    )
    return [postprocess_generated_text(tokenizer.decode(tokens), stops, None) for tokens in written]
