"""What a run leaves when it ends: its scores, the gates it passes, its record and its weights."""

from dataclasses import asdict, replace

from harness.gates.judge import judge
from harness.gates.subject import Subject
from harness.plan.sizes import build_model, matched
from harness.records import record as records
from harness.records.provenance import provenance
from harness.records.record import Eligibility, Error, Metrics, Record, Size, Status, empty_record
from harness.records.store import MODEL
from harness.training.evaluate import evaluate
from harness.training.inference_time import inference_time
from harness.training.optimizer import parameter_groups
from harness.training.overrides import overrides_of
from harness.training.run import Run
from harness.version import __version__
from zoo import size as sizing
from zoo.files import inside
from zoo.published.ours import save


def finish(run: Run, suite: str, status: Status, error: Error | None = None) -> Record:
    """The record of a run as it stands. Scores and gates only for a run that ended well."""
    spec, task, progress, used = run.spec, run.task, run.progress, run.progress.used
    metrics, size, reached, eligibility = Metrics.of(task), _measured_size(run), None, Eligibility()
    speed = run.reference.speed(progress.reference, used)
    if status == "ok":
        split = spec.evaluate.split or "valid"
        metrics = metrics.scored(split, run.score(split))
        if run.rule.target is not None:
            reached = progress.reached or run.reached(metrics.on(split))
        if spec.kind == "final":
            metrics = metrics.scored("test", run.score("test"))
            eligibility = judge(_subject(run, size), spec.evaluate.skip_gates)
            speed = replace(speed, **inference_time(run.model, task, device=run.device, precision=run.precision))
    return empty_record(spec, suite, metrics, status, error).replace(
        size=size,
        budget=records.Budget(run.rule, reached, used, run.step_cost.flops / run.step_cost.tokens),
        data=records.Data(spec.fingerprint, progress.stream_hash, progress.stream_marks),
        defaults=overrides_of(run.model, spec.options),
        curve=_curve(run, metrics),
        speed=speed,
        memory=records.Memory(run.peak_bytes),
        eligibility=eligibility,
        provenance=provenance(run.device, run.precision, progress.kernels).replace(**run.layout),
        segments=[records.Segment.from_dict(segment) for segment in progress.segments],
    )


def _curve(run: Run, metrics: Metrics) -> list[records.CurvePoint]:
    """The points of the curve; the last of a run that ended well has its scores on valid."""
    points = [records.CurvePoint.from_dict(point) for point in run.progress.curve]
    return [*points[:-1], points[-1].replace(valid=metrics.valid)] if points and metrics.valid else points


def keep_model(run: Run, suite: str, plugins: tuple[str, ...]) -> None:
    """Leave the trained model beside the record, with what turns text into its tokens."""
    run.model.tokenizer = run.task.tokenizer
    spec = run.spec
    where = {"suite": suite, "run_id": run.folder.name, "task": spec.task_label, "seed": spec.seed}
    save(run.model, inside(run.folder, MODEL), made={"zoobench": __version__, **where, "plugins": plugins})


def _measured_size(run: Run) -> Size:
    """The size as solved, with what is counted on the trained model itself."""
    size = Size(**asdict(run.size))
    if run.spec.match is not None and size.target:
        size = replace(size, mismatch=matched(run.spec, run.task, run.model) / size.target - 1)
    model = run.model
    return replace(
        size,
        params=sizing.parameters(model),
        params_non_embedding=sizing.parameters(model, "non_embedding"),
        params_active=sizing.active_parameters(model),
    )


def _subject(run: Run, size: Size) -> Subject:
    """What the gates judge."""
    spec, task, train = run.spec, run.task, run.settings
    return Subject(
        model=run.model,
        task=task,
        size=replace(size, params=run.size.params, params_non_embedding=run.size.params_non_embedding),
        match=spec.match,
        build=lambda seed: build_model(spec.replace(seed=seed), task, run.size).to(run.device),
        score=lambda model, task: evaluate(model, task, "test", size=8, limit=8),
        loss=run.loss,
        build_task=spec.build_task,
        watch=run.watch,
        seed=spec.seed,
        stop=run.rule,
        used=run.progress.used,
        step=run.step_cost,
        examples=run.examples,
        groups=lambda: parameter_groups(run.trained, lr=train.lr, weight_decay=train.weight_decay),
        limit=spec.evaluate.limit("test"),
    )
