"""What is not a model's to read, or to continue from, is refused in one line: it never reaches a layer."""

import re

import pytest
import torch

import zoo
from zoo.contract import Batch, Shape

TOKENS = torch.tensor([[1, 2, 3], [4, 5, 6]])


def build(name, role="lm", **sizes):
    torch.manual_seed(0)
    shape = Shape(**{"length": 8, "outputs": 7, "vocab": 7, "target_length": 4, "width": 32, "depth": 2, **sizes})
    return zoo.build(name, role, shape=shape).eval()


def changed(state, path, change):
    """A state with the part at a path changed, or taken out where it is changed to None."""
    name, *rest = path
    part = changed(state[name], rest, change) if rest else change(state.get(name))
    return {k: v for k, v in {**state, name: part}.items() if v is not None}


def paths(state, *above):
    for name, x in state.items():
        yield from [(*above, name)] if isinstance(x, torch.Tensor) else paths(x, *above, name)


CHANGES = {
    "missing": lambda x: None,
    "a row more": lambda x: torch.cat([x, x[:1]]),
    "one row": lambda x: x[:1],
    "an axis more": lambda x: x[..., None],
    "another dtype": lambda x: x.to(torch.float64 if x.is_floating_point() else torch.float32),
    "elsewhere": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "no tensor": lambda x: x.tolist(),
}


@pytest.mark.parametrize("name", ["pre_ln", "retnet", "rwkv4", "transformer_2017"])
def test_a_state_with_another_part_is_refused(name):
    model = build(name, "seq2seq")
    state = model.read(TOKENS, torch.ones(2, 3, dtype=torch.bool))
    model.extend(TOKENS, state)
    for path in paths(state):
        if path[-1] in ("valid", "memory_mask"):  # without which all steps are valid
            continue
        for change in CHANGES.values():
            with pytest.raises(ValueError, match=f"^state.{'.'.join(path)}: "):
                model.extend(TOKENS, changed(state, path, change))


def test_states_of_other_models_are_refused():
    state = build("retnet").init_state(2)
    for other in (build("pre_ln"), build("retnet", depth=1), build("retnet", depth=3), build("retnet", width=64)):
        with pytest.raises(ValueError, match=r"^state\."):
            other.extend(TOKENS, state)
    model = build("retnet")
    model.extend(TOKENS, state)
    with pytest.raises(ValueError, match=r"^state\.\S+: float32"):
        model.double().extend(TOKENS, state)
    for junk in (None, (), {}):
        with pytest.raises(ValueError, match=r"^state(\.\w+)*: "):
            model.extend(TOKENS, junk)


@pytest.mark.parametrize(
    ("role", "batch", "said"),
    [
        ("lm", Batch(TOKENS.double()), "inputs: float64 (2, 3) on cpu; this model reads tokens (B, T)"),
        ("lm", Batch(TOKENS[:, :0]), "of one step at least"),
        ("lm", Batch(TOKENS[0]), "inputs: int64 (3) on cpu"),
        ("lm", Batch(TOKENS + 1), "tokens from 2 to 7; this model knows those from 0 to 6"),
        ("lm", Batch(TOKENS - 2), "tokens from -1 to 4"),
        ("lm", Batch(TOKENS, mask=torch.ones(2, 4, dtype=torch.bool)), "mask: bool (2, 4) on cpu; beside inputs"),
        ("lm", Batch(TOKENS, mask=torch.ones(2, 3)), "mask: float32 (2, 3)"),
        ("seq2seq", Batch(TOKENS, decoder_inputs=TOKENS - 2), "decoder_inputs: tokens from -1 to 4"),
        ("seq2seq", Batch(TOKENS + 1, decoder_inputs=TOKENS), "inputs: tokens from 2 to 7"),
        ("seq2seq", Batch(TOKENS, decoder_inputs=TOKENS[:1]), "decoder_inputs: 1 rows beside 2"),
        ("retrieve", Batch(TOKENS), "inputs2: None"),
        ("retrieve", Batch(TOKENS, inputs2=TOKENS[:1]), "inputs2: 1 rows beside 2"),
    ],
)
def test_a_batch_of_another_kind_is_refused(role, batch, said):
    for name in ("retnet", "transformer_2017"):
        with pytest.raises(ValueError, match=re.escape(said)) as error:
            build(name, role)(batch)
        assert "\n" not in str(error.value)
