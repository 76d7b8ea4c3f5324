"""What each role computes; that decoding continues exactly is asked by `zoo.checks`."""

import pytest
import torch
from torch import nn

import zoo
from tests.zoo.models import close, randomise
from zoo.blocks.heads import Embedding
from zoo.contract import Batch, Shape, Unsupported
from zoo.types import LABELLED, ROLES, LayerContext

T, U, V, C, D = 9, 4, 7, 3, 8
LENGTHS = torch.tensor([9, 5, 1])
MASK = torch.arange(T) < LENGTHS[:, None]


def build(role, name="pre_ln", *, outputs=None, **options):
    torch.manual_seed(0)
    outputs = outputs or (C if role in LABELLED else V)
    shape = Shape(length=T, vocab=V, outputs=outputs, target_length=U, width=D, depth=2)
    return randomise(zoo.build(name, role, shape=shape, **options).double())


def tokens(steps=T, seed=1):
    return torch.randint(V, (3, steps), generator=torch.Generator().manual_seed(seed))


def test_vectors_can_be_classified_but_not_modelled_as_language():
    shape = Shape(length=T, features=2, outputs=C, width=D)
    assert zoo.build("pre_ln", "classify", shape=shape)(Batch(inputs=torch.randn(3, T, 2))).shape == (3, C)
    for role in ("lm", "masked", "seq2seq"):
        with pytest.raises(Unsupported):
            zoo.build("pre_ln", role, shape=shape)


def test_seq2seq_needs_a_target_length():
    with pytest.raises(Unsupported, match="target length"):
        zoo.build("pre_ln", "seq2seq", shape=Shape(length=T, vocab=V, outputs=V, width=D))


def test_classify_averages_valid_steps():
    model, batch = build("classify"), Batch(inputs=tokens(), mask=MASK)
    y = model.encode(batch.inputs, MASK)
    rows = [y[i, :n].mean(0) for i, n in enumerate(LENGTHS)]
    close(model(batch), model.head(torch.stack(rows)))


def test_retrieve_encodes_both_documents_alike():
    model = build("retrieve")
    batch = Batch(inputs=tokens(), mask=MASK, inputs2=tokens(6, seed=2))
    a, b = model.pool(batch.inputs, MASK), model.pool(batch.inputs2, None)
    close(model(batch), model.head(model.compare(torch.cat([a, b, a * b, a - b], dim=-1))))
    first = model.compare[0].weight
    with torch.no_grad():  # made symmetric, the comparison does not mind the order: nothing before it does either
        first[:, :D] = first[:, D : 2 * D]
        first[:, 3 * D :] = 0
    swapped = Batch(inputs=batch.inputs2, inputs2=batch.inputs, mask2=MASK)
    close(model(swapped), model(batch))


def test_seq2seq_keeps_source_and_target_tokens_apart():
    model = build("seq2seq")
    assert model.embedding.table.num_embeddings == 2 * V
    source, target = tokens(), tokens(U)
    model.embedding.table.weight.data[V:] = 0
    other = Batch(inputs=source, decoder_inputs=(target + 1) % V)
    close(model(other), model(Batch(inputs=source, decoder_inputs=target)))


def test_tied_table_is_shared_and_counted_once():
    tied, free = build("lm", tie=True), build("lm")
    assert tied.head.weight is tied.embedding.table.weight
    count = [sum(p.numel() for p in model.parameters()) for model in (free, tied)]
    assert count[0] - count[1] == V * D
    assert build("lm", outputs=V + 1, tie=True).head.weight is not tied.embedding.table.weight


def test_a_masked_language_model_looks_both_ways():
    model, ids = build("masked"), tokens()
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % V
    change = (model(Batch(inputs=other)) - model(Batch(inputs=ids))).abs().amax((0, 2))
    assert (change > 1e-6).all()


def test_reconstruction_knows_the_last_valid_output_and_nothing_else():
    """The same output put at the last valid step of every row gives the same logits, whatever stands before it."""
    model, batch = build("reconstruct"), Batch(inputs=tokens(), mask=MASK)
    z, y = torch.randn(D, dtype=torch.float64), torch.randn(3, T, D, dtype=torch.float64)
    y[torch.arange(3), LENGTHS - 1] = z
    model.encode = lambda inputs, mask: y
    logits = model(batch)
    close(logits, logits[:1].expand_as(logits))
    assert (logits[0, 1:] - logits[0, :-1]).abs().amax(-1).min() > 1e-6  # positions tell the steps apart


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["pre_ln", "lstm"])
def test_padding_changes_nothing(role, name):
    """Junk in it changes no logits that count, and a row cut to its valid steps has the same."""
    model, ids, targets = build(role, name), tokens(), tokens(U, seed=3)
    junk = torch.where(MASK, ids, (ids + 1) % V)
    logits, others = (
        model(Batch(inputs=x, mask=MASK, inputs2=x.flip(0), mask2=MASK.flip(0), decoder_inputs=targets))
        for x in (ids, junk)
    )
    for row, n in enumerate(LENGTHS):
        one, second = ids[row : row + 1, :n], ids[2 - row : 3 - row, : LENGTHS[2 - row]]
        (alone,) = model(Batch(inputs=one, inputs2=second, decoder_inputs=targets[row : row + 1]))
        for found in (logits, others):
            close(found[row, : len(alone)] if found.dim() > 2 else found[row], alone)


def test_padding_does_not_move_the_position():
    model = build("lm")
    _, state = model.resume(tokens(), model.init_state(3), MASK)
    assert state["position"].tolist() == LENGTHS.tolist()


def test_embedding_offsets_each_row():
    recipe = zoo.recipe("pre_ln")
    embedding = Embedding(recipe, LayerContext(width=D, length=20), vocab=V, features=None)
    x, ids, offset = embedding(tokens(), torch.tensor([0, 3, 11])), tokens(), [0, 3, 11]
    for row, start in enumerate(offset):
        expected = embedding.table.weight[ids[row]] + embedding.positions.table[start : start + T]
        torch.testing.assert_close(x[row], expected)


def test_an_encoder_has_no_decoding_state():
    for role in LABELLED:
        model = build(role, "lstm")
        with pytest.raises(Unsupported):
            model.init_state(1)


def test_heads_start_as_their_recipe_says():
    torch.manual_seed(0)
    shape = Shape(length=T, vocab=500, outputs=500, width=64, depth=1)
    plain, rwkv = zoo.build("pre_ln", shape=shape), zoo.build("rwkv4", shape=shape)
    assert plain.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert plain.embedding.table.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    W = rwkv.head.weight  # orthogonal columns of norm ½√(V/D)
    torch.testing.assert_close(W.T @ W, 0.25 * 500 / 64 * torch.eye(64), rtol=1e-4, atol=1e-4)
    E = rwkv.embedding.table.weight
    torch.testing.assert_close(E.T @ E, 1e-8 * 500 * torch.eye(64), rtol=1e-4, atol=1e-9)
    assert isinstance(rwkv.embedding.norm, nn.LayerNorm)


def test_the_decoder_sees_its_past_and_its_source():
    model, target = build("seq2seq", "transformer_2017"), tokens(U, seed=2)
    whole = model(Batch(inputs=tokens(), mask=MASK, decoder_inputs=target))
    other = torch.cat([target[:, :2], (target[:, 2:] + 1) % V], 1)
    changed = model(Batch(inputs=tokens(), mask=MASK, decoder_inputs=other))
    close(changed[:, :2], whole[:, :2])
    assert (changed[:, 2:] - whole[:, 2:]).abs().amax(-1).min() > 1e-6
    assert (model(Batch(inputs=(tokens() + 1) % V, mask=MASK, decoder_inputs=target)) - whole).abs().amin() > 1e-9


def test_one_table_serves_source_target_and_softmax():
    model = build("seq2seq", "transformer_2017", outputs=5)
    assert model.head is None
    assert model.embedding.table.weight.shape == (V + 5, D)
    apart = build("seq2seq", "transformer_2017", outputs=5, tie=False)
    assert apart.head.weight.shape == (5, D)
    x = apart.embedding(tokens(), torch.zeros(1, dtype=torch.long))
    plain = apart.embedding.table(tokens()) * D**0.5
    assert (x - plain).abs().max() <= 1 + 1e-9  # sines and cosines on inputs times √D
