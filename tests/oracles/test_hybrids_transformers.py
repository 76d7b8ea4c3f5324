"""Hybrids against transformers' own: whole models of the same weights, each in the form that it keeps them in."""

import pytest
import torch

import zoo
from tests.zoo.models import in_pieces
from tests.zoo.published.hybrids import OURS, T, hybrid, ids
from zoo.contract import Batch
from zoo.published.transformers import counterparts

transformers = pytest.importorskip("transformers", minversion="5.25")


@pytest.mark.parametrize("family", OURS)
def test_language_models(oracle, in_float64, family):
    """Gradients are those of transformers' parameters, through what is made of them for ours."""
    theirs = hybrid(transformers, family).double()
    if family == "recurrent_gemma":
        scan_in_float64(theirs)
    architecture, shape, options = counterparts.build_arguments(theirs.config)
    model = zoo.build(architecture, shape=shape, **options).double().eval()
    stored = {**dict(theirs.named_parameters(remove_duplicate=False)), **dict(theirs.named_buffers())}
    weights = counterparts.HYBRIDS[family].weights(model, theirs.config, stored, family)
    tokens = ids()
    got = torch.func.functional_call(model, weights, (Batch(inputs=tokens),))
    want = theirs(input_ids=tokens, use_cache=False).logits
    proof = oracle(OURS[family], f"transformers, {type(theirs).__name__}")
    proof.equal(got, want, dict(theirs.named_parameters()), tolerance=1e-6, gradients=1e-5)
    model.load_state_dict(weights)
    proof.outputs(in_pieces(model, tokens, [9, 1, 1, T - 11])[0], want, 1e-6)


def scan_in_float64(model):
    from functools import partial

    for part in model.modules():
        if hasattr(part, "_rnn_scan"):
            part._rnn_scan = partial(part._rnn_scan, acc_dtype=torch.float64)
