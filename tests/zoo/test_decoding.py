"""Beam search against every possible answer, and that neither state nor company changes what is written."""

import dataclasses
import itertools

import pytest
import torch

import zoo
from tests.zoo.models import randomise
from zoo.contract import Batch, Shape
from zoo.decoding import decode

START, STOP, S = 0, 1, 6
LENGTHS = torch.tensor([6, 4, 1, 3, 5])
MASK = torch.arange(S) < LENGTHS[:, None]
SOURCE = torch.randint(5, (5, S), generator=torch.Generator().manual_seed(1))
BATCH = Batch(inputs=SOURCE, mask=MASK)


def build(name, *, outputs=3, longest=4):
    torch.manual_seed(2)
    shape = Shape(length=S, vocab=5, outputs=outputs, target_length=longest, width=16, depth=2)
    return randomise(zoo.build(name, "seq2seq", shape=shape).double())


def write(model, batch=BATCH, **options):
    return decode(model, batch, **{"start": START, "stop": STOP, "longest": 4, **options})


@torch.no_grad()
def all_answers(model, example, longest, symbols):
    """Log-probability of every answer of at most `longest` tokens, stop included, in one forward pass."""
    answers = [a for n in range(longest) for a in itertools.product(symbols, repeat=n)]
    rows = torch.tensor([[*a, STOP, *[START] * (longest - 1 - len(a))] for a in answers])
    inputs, mask = SOURCE[example].expand(len(rows), -1), MASK[example].expand(len(rows), -1)
    shifted = torch.nn.functional.pad(rows, (1, -1), value=START)
    log_p = torch.log_softmax(model(Batch(inputs=inputs, mask=mask, decoder_inputs=shifted)), dim=-1)
    chosen = log_p.gather(2, rows[..., None])[..., 0]
    return {a: float(chosen[i, : len(a) + 1].sum()) for i, a in enumerate(answers)}


@pytest.mark.parametrize("alpha", [0.0, 0.6, 6.0])
@pytest.mark.parametrize("name", ["lstm", "transformer_2017"])
def test_a_wide_beam_finds_the_best_of_all_answers(name, alpha):
    model = build(name)
    found = write(model, beam=200, alpha=alpha)
    for example in range(5):
        scores = all_answers(model, example, 4, (0, 2))
        best = max(scores, key=lambda a: scores[a] / ((5 + len(a) + 1) / 6) ** alpha)
        assert found[example] == list(best)


@pytest.mark.parametrize("name", ["lstm", "transformer_2017"])
def test_beam_of_one_takes_the_likeliest_token_at_every_step(name):
    model = build(name, outputs=6, longest=7)
    for example, found in enumerate(write(model, longest=7)):
        written = []
        while len(written) < 7:
            row = torch.tensor([[START, *written]])
            one = Batch(inputs=SOURCE[example : example + 1], mask=MASK[example : example + 1], decoder_inputs=row)
            token = int(model(one)[0, -1].argmax())
            if token == STOP:
                break
            written.append(token)
        assert found == written


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("name", ["pre_ln", "lstm", "transformer_2017"])
def test_extending_a_state_writes_what_whole_passes_write(name, beam):
    model = build(name, outputs=6, longest=7)
    resumed = write(model, beam=beam, longest=7, alpha=3.0)
    model.traits = dataclasses.replace(model.traits, resumable=False)
    assert write(model, beam=beam, longest=7, alpha=3.0) == resumed
    assert len(set(map(tuple, resumed))) > 1


@pytest.mark.parametrize("name", ["pre_ln", "transformer_2017", "reformer"])
def test_company_changes_nothing(name):
    model = build(name, outputs=6, longest=7)
    together = write(model, beam=3, longest=7)
    for example, n in enumerate(LENGTHS):
        one = Batch(inputs=SOURCE[example : example + 1, :n])
        assert write(model, one, beam=3, longest=7) == [together[example]]
    order = torch.tensor([3, 1, 4, 0, 2])
    assert write(model, Batch(inputs=SOURCE[order], mask=MASK[order]), beam=3, longest=7) == [
        together[i] for i in order.tolist()
    ]


class Fixed(zoo.contract.Model):
    """The same next-token probabilities whatever was read, by the last token written."""

    def __init__(self, table):
        super().__init__()
        self.traits = zoo.contract.Traits(causal="strict", bidirectional=False, resumable=False)
        self.log_p = torch.tensor(table, dtype=torch.float64).log()

    def forward(self, batch):
        return self.log_p[batch.decoder_inputs]


def test_a_beam_finds_what_greed_misses():
    """Greedy: 2, then stop, .6 · .4 (of equals the stop token comes first). Better: 3, then stop, .4 · .9."""
    model = Fixed([[0, 0, 0.6, 0.4], [0, 1, 0, 0], [0, 0.4, 0.3, 0.3], [0, 0.9, 0.05, 0.05]])
    assert write(model, beam=1) == [[2]] * 5
    assert write(model, beam=2) == [[3]] * 5


def test_length_normalisation_prefers_the_longer_of_two():
    """Log-probabilities −1.20 of `stop` and −1.27 of `2 stop`; divided by lp = 1 and (7/6)^α."""
    a = 0.3
    model = Fixed([[0, a, 1 - a], [0, 1, 0], [0, 0.4, 0.6]])
    assert write(model, beam=9, longest=2, alpha=0.0) == [[]] * 5
    assert write(model, beam=9, longest=2, alpha=1.0) == [[2]] * 5


@pytest.mark.parametrize("beam", [1, 2, 50])
def test_answers_are_cut_off_at_the_longest(beam):
    never = Fixed([[0, 0, 0.6, 0.4], [0, 1, 0, 0], [0, 0, 0.6, 0.4], [0, 0, 0.6, 0.4]])
    assert write(never, beam=beam, longest=3) == [[2, 2, 2]] * 5
    for answer in write(build("lstm", outputs=6), beam=beam, longest=3):
        assert len(answer) <= 3


def test_a_model_of_nan_writes_nothing():
    assert write(Fixed([[float("nan")] * 3] * 3), beam=2) == [[]] * 5


def test_modes_and_gradients_are_left_as_found():
    model = build("transformer_2017").train()
    model.backbone.encoder.eval()
    modes = [module.training for module in model.modules()]
    first = write(model, beam=2)
    assert [module.training for module in model.modules()] == modes
    assert first == write(model, beam=2) == write(model.eval(), beam=2)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("options", [{"longest": 0}, {"beam": 0}])
def test_errors(options):
    with pytest.raises(ValueError, match="longest and beam must be at least 1"):
        write(build("lstm"), **options)
