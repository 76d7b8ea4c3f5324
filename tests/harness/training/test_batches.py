"""The stream of batches is the task's own, in order, from any start; its hash notices every byte."""

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks
from harness.records.stream_hash import extend_hash, hash_examples
from harness.training.batches import stream
from zoo.types import Batch

TASK = tasks.build("mqar", length=8, pairs=2, vocab=16, examples=10)


def same(a, b):
    return a.arrays().keys() == b.arrays().keys() and all(
        torch.equal(x, y) for x, y in zip(a.arrays().values(), b.arrays().values(), strict=True)
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 30), st.integers(1, 7), st.integers(0, 3))
def test_the_stream_is_the_tasks_batches_in_order_from_any_start(start, size, seed):
    before, own = f"{start}", f"{start}"
    for index, (batch, hashed, examples) in enumerate(islice(stream(TASK, seed, size, start=start, before=before), 4)):
        assert same(batch, TASK.batch("train", start + index, seed, size=size))
        own = extend_hash(own, batch)
        assert hashed == own
        assert (examples == hash_examples(batch)).all()


def test_the_hash_notices_one_value_a_name_a_type_and_a_shape():
    tokens = torch.arange(12).reshape(3, 4)
    changed = tokens.clone()
    changed[2, 3] += 1
    variants = [
        Batch(inputs=tokens),
        Batch(inputs=tokens.flip(0)),
        Batch(inputs=changed),
        Batch(inputs=tokens.int()),
        Batch(inputs=tokens.reshape(4, 3)),
        Batch(inputs=tokens, targets=tokens),
        Batch(inputs=tokens, mask=tokens > 3),
        Batch(inputs=tokens, counted=tokens > 3),
    ]
    assert len({extend_hash("", batch) for batch in variants}) == len(variants)


def test_an_error_in_the_data_reaches_the_reader():
    class Broken:
        def batch(self, *args, **kwargs):
            raise ValueError("bad data")

    with pytest.raises(ValueError, match="bad data"):
        next(stream(Broken(), 0, 1))
