"""Log-likelihoods against what a model says about each request alone, and how much of it is read."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.build import build
from zoo.contract import Batch, Model, Shape, Traits, Unsupported

pytest.importorskip("lm_eval")
from harness.lm_eval import scoring

V, LENGTH = 23, 32


def tokens(*shape: int) -> list[Any]:
    return torch.randint(V, shape).tolist()


@pytest.fixture
def pairs() -> list[tuple[list[int], list[int]]]:
    """Questions with several answers, some of which just fit; one twice, nothing, and more than fits."""
    torch.manual_seed(0)
    found = []
    for length in (1, 3, 9, 9, 14, 20, 28):
        context = tokens(length)
        found += [(context, tokens(n)) for n in (1, 1, 2, 7, LENGTH + 1 - length) if length + n <= LENGTH + 1]
    return [*found, found[5], (tokens(3), []), *((tokens(n), tokens(m)) for n, m in ((40, 5), (4, LENGTH), (3, 70)))]


def model(name: str, **changes: Any) -> Model:
    torch.manual_seed(1)
    made = build(name, "lm", shape=Shape(length=LENGTH, outputs=V, vocab=V, width=32, depth=2), **changes).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made


def alone(made: Model, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """By definition: one row, all logits, log-softmax."""
    row = [*context, *continuation][-(LENGTH + 1) :]
    with torch.no_grad():
        logits = made(Batch(inputs=torch.tensor([row[:-1]])))[0].double().log_softmax(-1)
    n = len(continuation)
    logits, wanted = logits[len(logits) - n :], torch.tensor(continuation, dtype=torch.long)
    return float(logits.gather(1, wanted[:, None]).sum()), bool((logits.argmax(1) == wanted).all())


def by_definition(made: Model, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    if len(continuation) <= LENGTH:
        return alone(made, context, continuation)
    text, values = [context[-1], *continuation], []
    for start in range(0, len(continuation), LENGTH):
        end = min(start + LENGTH, len(continuation))
        values.append(alone(made, text[max(0, end - LENGTH) : start + 1], text[start + 1 : end + 1]))
    return sum(value for value, _ in values), all(greedy for _, greedy in values)


def test_scores_are_what_the_model_says_of_each_request_alone(architecture: str, pairs: list[Any]) -> None:
    try:
        made = model(architecture)
    except Unsupported as error:
        pytest.skip(str(error))
    wanted = [by_definition(made, *pair) for pair in pairs]
    for options in (
        {"share_prefixes": False},
        {"share_prefixes": True},
        {"share_prefixes": True, "batch_size": 1},
        {"share_prefixes": True, "batch_tokens": 60},
        {"share_prefixes": False, "batch_tokens": 60},
        {"batch_size": 3},
    ):
        found = scoring.score(made, pairs, **options)
        assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted], options
        assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted], abs=5e-5), options


class Watched(Model):
    """A model whose next token is the last plus one, and which counts what it reads."""

    def __init__(self, traits: Traits) -> None:
        super().__init__()
        self.role, self.traits = "lm", traits
        self.shape = Shape(length=LENGTH, outputs=V, vocab=V)
        self.read: list[tuple[int, int]] = []

    def forward(self, batch: Batch) -> Tensor:
        self.read.append(tuple(batch.inputs.shape))
        return 5 * torch.nn.functional.one_hot((batch.inputs + 1) % V, V).float()

    def init_state(self, batch: int) -> dict[str, Any]:
        return {"steps": torch.zeros(batch)}

    def extend(self, tokens: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        return self(Batch(inputs=tokens)), {"steps": state["steps"] + tokens.shape[1]}


STRICT = Traits(causal="strict", bidirectional=False, resumable=True)
LIKELY = 5 - math.log(math.exp(5) + V - 1)


def test_likely_and_unlikely_tokens() -> None:
    made = Watched(STRICT)
    found = scoring.score(made, [([3], [4, 5]), ([3], [4, 6]), ([3], [3])])
    assert [greedy for _, greedy in found] == [True, False, False]
    assert [value for value, _ in found] == pytest.approx([2 * LIKELY, 2 * LIKELY - 5, LIKELY - 5], abs=1e-5)


def test_a_context_is_read_once_for_all_that_continues_it() -> None:
    made, context = Watched(STRICT), list(range(20))
    scoring.score(made, [(context, [1, 2]), (context, [2, 3, 4]), (context, [7])])
    assert made.read == [(1, 20), (3, 2)]
    made.read.clear()
    scoring.score(made, [(context, [1, 2]), (context, [2, 3, 4])], share_prefixes=False)
    assert made.read == [(2, 22)]


def test_equal_requests_and_answers_of_one_token_are_read_once() -> None:
    made = Watched(STRICT)
    scoring.score(made, [([1, 2], [3]), ([1, 2], [4]), ([1, 2], [3]), ([1], [2, 9])], share_prefixes=False)
    assert made.read == [(1, 2)]


def test_no_batch_is_larger_than_it_may_be() -> None:
    made, pairs = Watched(STRICT), [(tokens(n), tokens(3)) for n in range(1, 29)]
    scoring.score(made, pairs, batch_size=5)
    assert {rows for rows, _ in made.read} == {5, 3}
    made.read.clear()
    scoring.score(made, pairs, batch_tokens=64)
    assert max(rows * steps for rows, steps in made.read) <= 64 < sum(rows * steps for rows, steps in made.read)


def test_neither_logits_nor_states_outgrow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made, contexts = Watched(STRICT), [tokens(10) for _ in range(12)]
    pairs = [(context, [token, 1, 2]) for context in contexts for token in (1, 2)]
    monkeypatch.setattr(scoring, "LOGITS", 40 * V)
    scoring.score(made, pairs)
    assert {rows for rows, steps in made.read if steps == 10} == {4}
    monkeypatch.setattr(scoring, "STATES", 3 * 4)  # one number of four bytes a row
    made.read.clear()
    scoring.score(made, pairs)
    assert {rows for rows, _ in made.read} == {3}


def test_what_the_future_can_shift_is_never_padded() -> None:
    made = Watched(Traits(causal="leaky", bidirectional=False, resumable=False))
    pairs = [(tokens(n), [1]) for n in (3, 5, 3, 5, 5)]
    scoring.score(made, pairs)
    assert sorted(made.read) == [(2, 3), (3, 5)]


def test_without_masks_only_contexts_of_one_length_are_read_together() -> None:
    made = Watched(STRICT)
    contexts = [tokens(20), tokens(20), tokens(19)]
    scoring.score(made, [(context, [token, 1]) for context in contexts for token in (1, 2)])
    assert made.read == [(2, 20), (4, 1), (1, 19), (2, 1)]


def test_each_score_is_told_once_and_as_it_is_returned(pairs: list[Any]) -> None:
    told: dict[int, scoring.Score] = {}

    def tell(index: int, score: scoring.Score) -> None:
        assert index not in told
        told[index] = score

    found = scoring.score(Watched(STRICT), pairs, on_score=tell)
    assert found == [told[index] for index in range(len(pairs))]


def test_what_cannot_be_asked() -> None:
    with pytest.raises(Unsupported, match="no next token"):
        scoring.score(Watched(Traits(causal="no", bidirectional=True, resumable=False)), [])
    with pytest.raises(ValueError, match="context is empty"):
        scoring.score(Watched(STRICT), [([], [1])])
    with pytest.raises(ValueError, match="token 99 is none of the 23"):
        scoring.score(Watched(STRICT), [([1], [99])])
    with pytest.raises(ValueError, match="at most the 32 tokens"):
        scoring.score(model("gpt2"), [], max_length=33)
    assert scoring.score(Watched(STRICT), [(tokens(50), [1])], max_length=50)
