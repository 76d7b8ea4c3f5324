"""Published weights, scored as they are."""

from dataclasses import asdict

from harness import machine
from harness.plan.published_rows import open_weights, size, weights_digest
from harness.records.provenance import provenance
from harness.records.record import External, Metrics, Record, Size, empty_record
from harness.records.spec import RunSpec
from harness.suite import pretrained
from harness.training.evaluate import evaluate
from tasks.base import Split, Task


def score_published(spec: RunSpec, suite: str, task: Task) -> Record:
    """The record of a published model, scored on `valid` and `test`; raises as `open_weights` does."""
    device = machine.pick()
    model = open_weights(spec, task).to(device)

    def scores(split: Split) -> dict[str, float]:
        return evaluate(model, task, split, size=8, limit=spec.evaluate.limit(split))

    kind, where, _ = pretrained.kind_and_where(spec.options)
    metrics = Metrics.of(task).scored("valid", scores("valid")).scored("test", scores("test"))
    return empty_record(spec, suite, metrics, "ok").replace(
        size=Size(**asdict(size(model, task))),
        external=External(kind, where, weights_digest(model)),
        provenance=provenance(device, "fp32", {}),
    )
