"""Arrays are what role and `shape` promise."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tasks.base import SPLITS, Task
from tasks.checks.subject import Subject, some
from zoo.check_result import CheckResult, failed, skipped
from zoo.types import Batch


def check_shapes(subject: Subject) -> CheckResult:
    """Arrays are what role and `shape` promise: dtypes, lengths, tokens below `vocab`, targets below `outputs`."""
    if subject.missing:
        return skipped("shapes", subject.missing)
    task, longest = subject.task, 0
    for split in SPLITS:
        ids = some(task, split, 64)
        batch = task.examples(split, ids, 0)
        for problem in _problems(task, batch, len(ids)):
            return failed("shapes", f"{split}: {problem}")
        steps = max(batch.inputs.shape[1], 0 if batch.inputs2 is None else batch.inputs2.shape[1])
        longest = max(longest, steps)
        if split == "train" and steps != task.train_length:
            return failed("shapes", f"train: inputs have {steps} steps, train_length says {task.train_length}")
    if longest != task.shape.length:
        return failed("shapes", f"inputs have up to {longest} steps, shape.length says {task.shape.length}")
    return CheckResult("shapes", "passed", longest, task.shape.length, "steps of the longest input")


def _problems(task: Task, batch: Batch, n: int) -> Iterator[str]:
    """What is wrong with the arrays of a batch of `n` examples."""
    for name, array in batch.arrays().items():
        if not isinstance(array, np.ndarray):
            yield f"{name} is a {type(array).__name__}, not a NumPy array"
            return
        if len(array) != n or array.ndim < 1:
            yield f"{name} has shape {array.shape} for {n} examples"
            return
    yield from _input_problems(task, "inputs", batch.inputs, "mask", batch.mask)
    if (batch.inputs2 is not None) != (task.role == "retrieve"):
        yield "inputs2 belongs to role retrieve, and to no other"
    elif batch.inputs2 is not None:
        yield from _input_problems(task, "inputs2", batch.inputs2, "mask2", batch.mask2)
    if (batch.decoder_inputs is not None) != (task.role == "seq2seq"):
        yield "decoder_inputs belong to role seq2seq, and to no other"
        return
    yield from _target_problems(task, batch)
    if batch.decoder_inputs is not None:
        yield from _decoder_problems(task, batch)


def _input_problems(task: Task, name: str, inputs: Any, masked: str, mask: Any) -> Iterator[str]:
    shape = task.shape
    if shape.vocab is not None:
        if inputs.ndim != 2 or inputs.dtype != np.int64:
            yield f"{name} must be int64 (B, T), found {inputs.dtype} {inputs.shape}"
            return
        yield from _outside(name, inputs, "vocab", shape.vocab)
    elif inputs.ndim != 3 or inputs.dtype != np.float32 or inputs.shape[2] != shape.features:
        yield f"{name} must be float32 (B, T, {shape.features}), found {inputs.dtype} {inputs.shape}"
    elif not np.isfinite(inputs).all():
        yield f"{name} are not all finite"
    if inputs.shape[1] > shape.length:
        yield f"{name} have {inputs.shape[1]} steps, shape.length says {shape.length}"
    if mask is None:
        return
    if mask.dtype != np.bool_ or mask.shape != inputs.shape[:2]:
        yield f"{masked} must be bool {inputs.shape[:2]}, found {mask.dtype} {mask.shape}"
    elif (mask[:, 1:] & ~mask[:, :-1]).any():
        yield f"{masked} must be true on a prefix: valid steps stand first"
    elif not mask[:, 0].all():
        yield f"{masked} leaves an example with no valid step"


def _target_problems(task: Task, batch: Batch) -> Iterator[str]:
    steps = {"classify": (), "retrieve": (), "seq2seq": np.shape(batch.decoder_inputs)[1:]}
    wanted = (len(batch), *steps.get(task.role, batch.inputs.shape[1:2]))
    if batch.targets is None or batch.targets.dtype != np.int64 or batch.targets.shape != wanted:
        found = "none" if batch.targets is None else f"{batch.targets.dtype} {batch.targets.shape}"
        yield f"targets must be int64 {wanted} for role {task.role}, found {found}"
        return
    yield from _outside("targets", batch.targets, "outputs", task.shape.outputs)
    if batch.counted is None:
        if batch.mask is not None and not batch.mask.all() and task.role in ("lm", "masked"):
            yield "counted must say that padding does not count"
        return
    if batch.counted.dtype != np.bool_ or batch.counted.shape != wanted:
        yield f"counted must be bool {wanted}, found {batch.counted.dtype} {batch.counted.shape}"
    elif not batch.counted.any():
        yield "no target counts"
    elif task.role in ("lm", "masked") and batch.mask is not None and (batch.counted & ~batch.mask).any():
        yield "targets count where the mask says there is only padding"


def _decoder_problems(task: Task, batch: Batch) -> Iterator[str]:
    inputs, targets, shape = batch.decoder_inputs, batch.targets, task.shape
    counted = np.ones(targets.shape, dtype=bool) if batch.counted is None else batch.counted
    if inputs.ndim != 2 or inputs.dtype != np.int64:
        yield f"decoder_inputs must be int64 (B, U), found {inputs.dtype} {inputs.shape}"
        return
    if inputs.shape[1] > (shape.target_length or 0):
        yield f"decoder_inputs have {inputs.shape[1]} steps, shape.target_length says {shape.target_length}"
    yield from _outside("decoder_inputs", inputs, "outputs", shape.outputs)
    both = counted[:, 1:] & counted[:, :-1]
    if (inputs[:, 1:] != targets[:, :-1])[both].any():
        yield "decoder_inputs must be the targets shifted right by one"
    if task.decoding is None:
        return
    if (inputs[:, 0] != task.decoding.start).any():
        yield f"decoder_inputs must begin with decoding.start, {task.decoding.start}"
    last = counted.shape[1] - 1 - counted[:, ::-1].argmax(axis=1)
    if (np.take_along_axis(targets, last[:, None], axis=1) != task.decoding.stop).any():
        yield f"the last target that counts must be decoding.stop, {task.decoding.stop}"
    if counted.sum(axis=1).max() > task.decoding.longest:
        yield f"answers have up to {counted.sum(axis=1).max()} tokens, decoding.longest says {task.decoding.longest}"


def _outside(name: str, values: Any, bound: str, limit: int) -> Iterator[str]:
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high >= limit:
        yield f"{name} lie in [{low}, {high}]; they must be at least 0 and below shape.{bound} = {limit}"
