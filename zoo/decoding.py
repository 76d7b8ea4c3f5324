"""Greedy and beam search: the answers that a sequence-to-sequence model writes by itself."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from zoo.contract import Batch, Model, chosen, quiet

ALPHA = 0.6
"""Of the length normalisation; 0.6 is what Vaswani et al. 2017 (section 6.1) take, 0.6 to 0.7 is best in Wu et al."""


def decode(
    model: Model, batch: Batch, *, start: int, stop: int, longest: int, beam: int = 1, alpha: float = ALPHA
) -> list[list[int]]:
    """The best answer that beam search finds for each example: its tokens, without the start and the stop token.

    Every step ranks all continuations of an example's hypotheses by the sum of their log-probabilities. The best
    `beam` minus the number already finished stay; those that end with `stop` are finished and leave the beam
    (Sutskever et al. 2014, section 3.2), which therefore empties; a beam of 1 is greedy decoding. The answer is the
    finished hypothesis Y with the highest log P(Y|X) / lp(Y), lp(Y) = ((5 + |Y|) / 6)^α, |Y| counting the stop token
    (Wu et al. 2016, equation 14, without the coverage penalty). Where none has finished after `longest` tokens, it is
    the most probable one, cut off there. No hypothesis meets those of another example, so company changes nothing
    but rounding. Where logits are NaN, nothing can be ranked: the answer is empty, or the best that had finished.

    A resumable model reads the source once and is extended token by token, its state following the hypotheses; any
    other runs forward over the growing target. No gradients; dropout is off, and every module's mode is left as found.

    Args:
        model: of role `seq2seq`. batch: `inputs` (B, S) and maybe `mask`, on the model's device.
        start, stop: target tokens. longest: most tokens of an answer, the stop token included.
        beam: hypotheses per example. alpha: α; 0 compares plain log-probabilities.

    Raises:
        ValueError: `longest` or `beam` is below 1.
    """
    if longest < 1 or beam < 1:
        raise ValueError(f"decode: longest and beam must be at least 1, got longest={longest} and beam={beam}")
    with quiet(model):
        answers = _search(model, batch, start, stop, longest, beam, alpha).tolist()
    return [answer[: answer.index(stop)] if stop in answer else answer for answer in answers]


def _search(
    model: Model, batch: Batch, start: int, stop: int, longest: int, beam: int, alpha: float
) -> Int[Tensor, "B L"]:
    """The search itself. E examples are still open, each with W hypotheses; a dead one has the score −∞."""
    B, device, next_logits = len(batch), batch.inputs.device, _next_logits(model, batch)
    best = torch.full((B,), -torch.inf, dtype=torch.float64, device=device)
    answers = torch.full((B, longest), stop, dtype=torch.long, device=device)
    open_ = torch.arange(B, device=device)
    room = torch.full((B,), beam, device=device)
    written = torch.full((B, 1, 1), start, dtype=torch.long, device=device)
    scores = torch.zeros(B, 1, dtype=torch.float64, device=device)
    rows = torch.arange(B, device=device)
    for step in range(1, longest + 1):
        logits = next_logits(rows, written.flatten(0, 1))
        V, W = logits.shape[-1], scores.shape[1]
        log_p = torch.log_softmax(logits.double(), dim=-1).view(len(open_), W, V)
        ranked, places = (scores[..., None] + log_p).flatten(1).topk(min(beam, W * V))
        parents, tokens = places // V, places % V
        valid = (ranked > -torch.inf) & (torch.arange(ranked.shape[1], device=device) < room[:, None])
        ended = valid & (tokens == stop)
        prefixes = written.gather(1, parents[..., None].expand(-1, -1, step))
        written = torch.cat([prefixes, tokens[..., None]], dim=2)

        value, at = ranked.masked_fill(~ended, -torch.inf).div(((5 + step) / 6) ** alpha).max(dim=1)
        better = value > best[open_]
        best[open_] = torch.where(better, value, best[open_])
        answers[open_[better], :step] = written[better, at[better], 1:]
        answers[open_[better], step:] = stop

        room = room - ended.sum(1)
        scores = ranked.masked_fill(~valid | ended, -torch.inf)
        goes_on = (scores > -torch.inf).any(1)
        if step == longest:
            cut = goes_on & (best[open_] == -torch.inf)
            answers[open_[cut]] = written[cut, scores[cut].argmax(1), 1:]
        rows = (torch.arange(len(open_), device=device)[:, None] * W + parents)[goes_on].flatten()
        open_, room, written, scores = (x[goes_on] for x in (open_, room, written, scores))
        if not len(open_):
            break
    return answers


def _next_logits(model: Any, batch: Batch) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of `rows` and `written` (R, t), which continue these rows of the last call: the next logits (R, V).

    A resumable model carries on its state; any other runs forward over all that is written.
    """
    if model.traits.resumable and callable(getattr(model, "read", None)):
        state = model.read(batch.inputs, batch.mask)

        def extend(rows: Tensor, written: Tensor) -> Tensor:
            nonlocal state
            logits, state = model.extend(written[:, -1:], chosen(state, rows))
            return logits[:, -1]

        return extend
    inputs, mask = batch.inputs, batch.mask

    def rerun(rows: Tensor, written: Tensor) -> Tensor:
        nonlocal inputs, mask
        inputs, mask = inputs[rows], None if mask is None else mask[rows]
        return model(Batch(inputs=inputs, mask=mask, decoder_inputs=written))[:, -1]

    return rerun
