"""What a record implies is computed again: forged records, whose author made ids and digests anew, are named."""

import copy
import json
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.execute.recompute import Recompute
from harness.gates.registry import gates
from harness.plan.expand import expand
from harness.records.checks import GATES, IN_TIME, MATCHED, ORDERED, problems, sealed
from harness.records.record import Eligibility, Error, Metrics, Record, empty_record
from harness.records.store import Store, baseline_key, read_record, stores
from harness.records.together import of_one_suite, together
from harness.records.verify import shuffled, verify
from harness.suite.load import load

from ..conftest import TINY
from ..made import do, make_spec
from ..planted import change

CLAIMS = (
    "provenance",
    "memory",
    "reference",
    "segments",
    "about",
    "measured",
    "defaults",
    "metrics",
    "loss",
    "valid",
    "size",
)
"""Where a record states what only other records, a model, weights or a rerun can show."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two seeds of a small run, with their weights."""
    store = Store("tiny", tmp_path_factory.mktemp("results"))
    for seed in (0, 1):
        spec = make_spec("lstm", seed=seed, options={"depth": 1, "width": 8})
        store.write(do(spec, store.run_folder(spec.run_id), keep=True))
    return store


@pytest.fixture(scope="module")
def record(store):
    return store.records()[0]


def test_the_gates_are_those_that_there_are():
    assert GATES.keys() == gates().keys()
    for name, gate in gates().items():
        roles = IN_TIME if name in ORDERED else ()
        assert (roles, name in MATCHED) == (gate.roles, gate.of_matched)


def test_honest_records_are_sound(store):
    with Recompute(full=True) as deeper:
        assert verify(store.folder, deeper)[0] == []
        assert not deeper.left_out


@pytest.mark.parametrize(
    ("below", "path"), [("", "."), ("", "record.json"), ("model", ".."), ("model", "../record.json")]
)
def test_a_run_is_verified_from_its_own_folder(store, record, below, path, monkeypatch):
    monkeypatch.chdir(store.run_folder(record.run_id) / below)
    assert verify(Path(path))[0] == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"status": "oom"}, "record"),
        ({"metrics__test": {"loss": -1.0, "accuracy": 0.5}}, "scores"),
        ({"budget__used__steps": 11}, "budget"),
        ({"budget__used__seconds": 9.0}, "speed"),
        ({"size__target": 5.0}, "size"),
        ({"curve": lambda curve: curve[:3] + curve[4:]}, "curve"),
        ({"curve": lambda curve: [*curve[:-1], curve[-1].replace(valid={"loss": 1.0, "accuracy": 1.0})]}, "curve"),
        (
            {"eligibility__gates": lambda known: {**known, "repeatable": change(known["repeatable"], limit=1.0)}},
            "gates",
        ),
        ({"eligibility__gates": lambda known: {k: v for k, v in known.items() if k != "test_overlap"}}, "gates"),
        ({"data__stream_marks": lambda marks: {k: v for k, v in marks.items() if k != "4"}}, "data"),
        ({"segments": []}, "provenance"),
        ({"segments": lambda known: [change(known[0], start=4e9, end=4e9 + 60)]}, "provenance"),
        ({"status": "failed", "error": Error("RuntimeError", "lost"), "eligibility": Eligibility()}, "record"),
        ({"status": "diverged", "error": Error("Diverged", "nan"), "eligibility": Eligibility()}, "curve"),
        ({"digest": ""}, "digest"),
    ],
)
def test_what_contradicts_itself_is_named(changes, what, record):
    new = {}
    for path, value in changes.items():
        old = record
        for part in path.split("__"):
            old = getattr(old, part)
        new[path] = value(old) if callable(value) else value
    forged = change(record, **new)
    assert what in {name for name, _ in problems(forged if what == "digest" else sealed(forged))}
    assert "digest" in {name for name, _ in problems(change(record, **new))}, (
        "no change goes unseen without a new digest"
    )


def faster(record, times):
    """A record of a run so many times as fast, with all that follows from it."""
    used, speed = record.budget.used, record.speed
    return change(
        record,
        budget__used__seconds=used.seconds / times,
        curve=[point.replace(seconds=point.seconds / times) for point in record.curve],
        speed__train_tokens_per_s=speed.train_tokens_per_s * times,
        speed__relative=speed.relative and speed.relative * times,
        speed__seconds_in_reference_steps=speed.relative and speed.seconds_in_reference_steps / times,
    )


def test_what_no_processor_does_is_named(record):
    assert [*problems(sealed(faster(record, 3)))] == []
    ((what, why),) = problems(sealed(faster(record, 1e30)))
    assert (what, why[-8:]) == ("speed", "none can")


def test_a_run_much_faster_than_its_row_is_named(record):
    one, two, three = (record.replace(spec=record.spec.replace(seed=seed)) for seed in range(3))
    times = ((one, 1.0), (two, 3.0), (three, 0.05))
    for row in ([one, two, faster(three, 20)], [change(r, speed__decode_seconds=s) for r, s in times]):
        assert [(r, what) for r, what, _ in together(row) if what == "speed"] == [(row[2], "speed")]
        assert "speed" not in {what for _, what, _ in together(row[1:])}, "of two, one may have waited"


def leaves(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items:
        yield path
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def mutated(value, chance):
    if isinstance(value, (bool, type(None), str, list, dict)):
        return not value if isinstance(value, bool) else "other"
    return value * chance.choice((0.5, 2, 10)) if value else 7


def test_fields_changed_at_random_are_named(record, request):
    chance, data = random.Random(3), json.loads(json.dumps(record.to_dict()))
    tops = sorted(data.keys() - {"digest", "suite"})
    for _ in range(400 if request.config.getoption("--all") else 60):
        new = copy.deepcopy(data)
        *path, last = chance.choice([*leaves(new[top := chance.choice(tops)], (top,))])
        here = new
        for key in path:
            here = here[key]
        here[last] = mutated(here[last], chance)
        name = ".".join("*" if key in GATES else str(key) for key in (*path, last))
        try:
            forged = Record.from_dict(new)
            found = [*problems(sealed(forged))]
        except (ValueError, TypeError, AttributeError, StopIteration):
            continue  # no record at all
        assert found or any(claim in name for claim in CLAIMS), name


def test_data_models_and_weights_are_made_anew(store, record):
    with Recompute() as deeper:

        def found(forged, folder=None):
            return [what for what, _ in deeper(forged, folder)]

        assert found(record, store.run_folder(record.run_id)) == []
        assert found(change(record, data__stream_marks={**record.data.stream_marks, "2": "0" * 32})) == ["data"]
        assert found(change(record, size__width=16)) == ["size"]
        assert found(change(record, budget__flops_per_token=record.budget.flops_per_token / 2)) == ["budget"]
        assert found(change(record, metrics__primary="loss")) == ["scores"]
        higher = [record.curve[0].replace(loss=record.curve[0].loss * 1.01), *record.curve[1:]]
        assert found(record.replace(curve=higher)) == ["curve"]
        assert found(change(record, metrics__valid=dict.fromkeys(record.metrics.valid, 0.5))) == ["scores"]
        odd = change(record, metrics__valid=record.metrics.valid | {"accuracy": 0.3})
        assert "which no number of right answers of 16 gives" in next(deeper(odd))[1]
        assert found(change(record, status="failed", error=Error("RuntimeError", "lost"))) == ["record"]
        better = change(record, metrics__test={name: value / 2 for name, value in record.metrics.test.items()})
        assert "weights" in found(better, store.run_folder(record.run_id))
        assert found(record.replace(spec=record.spec.replace(plugins=(("x.py", "00"),)))) == []
        assert deeper.left_out == {"plug-ins that were not given: x.py": 1}


def test_some_are_trained_anew_in_an_order_that_nobody_foresees(store, record, monkeypatch):
    monkeypatch.setattr("harness.execute.recompute.ANEW", 1)
    forged = record.replace(curve=[record.curve[0].replace(loss=record.curve[0].loss * 1.01), *record.curve[1:]])
    for full, found in ((False, []), (True, ["curve"])):
        with Recompute(full=full) as deeper:
            assert [*deeper(record)] == []
            assert [what for what, _ in deeper(forged)] == found
            assert sum(count for why, count in deeper.left_out.items() if "drawn at random" in why) == (not full)
    assert sorted(shuffled(range(100))) == [*range(100)] != shuffled(range(100))


def test_a_loss_that_rounding_decides_is_no_contradiction(tmp_path):
    """At a rate of 3 the last bit of the first parameters decides what the tenth step loses, not the second."""
    store, spec = Store("tiny", tmp_path), make_spec("lstm", options={"depth": 1, "width": 8}, train={"lr": 3.0})
    store.write(do(spec, store.run_folder(spec.run_id)))
    wild = store.records()[0]
    for step, found, left_out in ((2, ["curve"], 0), (10, [], 1)):
        curve = [point.replace(loss=point.loss * (1.01 if point.steps == step else 1)) for point in wild.curve]
        with Recompute() as deeper:
            assert [what for what, _ in deeper(wild.replace(curve=curve), None)] == found
            assert sum(count for why, count in deeper.left_out.items() if "rounding" in why) == left_out


def test_baselines_are_made_anew(store, record):
    key = baseline_key(record.spec.task_label, record.data.fingerprint, record.spec.evaluate.test)
    task, folder = record.spec.build_task(), store.run_folder(record.run_id)
    head = {"task_label": record.spec.task_label, "metric": task.metric.name}
    rows = [{**head, **asdict(one)} for one in task.baselines(record.spec.evaluate.test)]
    for rise, found in ((0.0, set()), (0.25, {"baselines"})):
        rows[0]["value"] += rise
        store.write_baselines({key: rows})
        with Recompute() as deeper:
            assert {what for what, _ in deeper(record, folder)} == found
    (store.folder / "baselines.json").unlink()


def test_records_are_compared(store):
    one, two = store.records()
    other = sealed(change(two, size__params=two.size.params + 8))
    assert {what for _, what, _ in together([one, two, other])} == {"size"}
    copied = change(two, curve=one.curve)
    assert [(record, what) for record, what, _ in together([one, copied])] == [(copied, "curve")]
    row = [r.replace(spec=r.spec.replace(architecture_label="b")) for r in (one, two)]
    assert [what for _, what, _ in of_one_suite([one, two, row[0]])] == ["seeds"]
    first, last = sorted(row, key=lambda r: r.spec.seed)
    assert [*of_one_suite([one, two, first], uneven=True)] == [], "a row of fewer seeds"
    lacking = "its row lacks seed 0, and has later ones"
    assert [why for *_, why in of_one_suite([one, two, last], uneven=True)] == [lacking]
    trial = one.replace(spec=one.spec.replace(kind="trial", train=one.spec.train.replace(lr=0.5)))
    assert {what for _, what, _ in of_one_suite([one, two, trial])} == {"tuning"}


def test_a_loss_that_stands_twice_is_named(store):
    one, two = store.records()
    assert [what for what, _ in problems(sealed(change(one, metrics__test=one.metrics.valid)))] == ["scores"]
    assert [what for _, what, _ in together([one, change(two, metrics__test=one.metrics.test)])] == ["scores"]
    for loss in (0.0, 0.5, 1e-7 / 3):
        few = [change(r, metrics__test={"loss": loss, "accuracy": 1.0}) for r in (one, two)]
        assert [*together(few)] == [], "a loss that two models may have"


def test_records_are_those_of_their_suite():
    loaded = load(TINY)
    one, *_ = specs = expand(loaded)
    records = [change(empty_record(spec, "tiny", Metrics("accuracy"), "oom"), digest="0" * 64) for spec in specs]
    spec = one.replace(evaluate=one.evaluate.replace(test=1))
    forged = records[0].replace(spec=spec, run_id=spec.run_id)
    with Recompute() as deeper:
        assert [*deeper.suite(loaded.described(specs), records)] == []
        found = [why for _, _, why in deeper.suite(loaded.described(specs), [forged, *records[1:-1]])]
    lacking = f"2 runs of its rows are not here, such as {one.title()}"
    assert found == ["no run of this suite; differs in evaluate.test", lacking]


@pytest.mark.parametrize(
    ("told", "found", "left_out"),
    [
        ({}, [], []),
        ({"reference": "lstm"}, ["its board has another 'reference' than its text"], []),
        ({"targets": {"mqar": 0.1}}, ["its board has another 'targets' than its text"], []),
        ({"seeds": {"start": 2, "most": 3, "until": 0.1}}, ["its board has another 'seeds' than its text"], []),
        ({"text": {}}, [], ["their suite cannot be read here: it has no text"]),
        ({"text": {**TINY, "plugins": ["x.py"]}}, [], ["their suite cannot be read here: it names plug-ins"]),
    ],
)
def test_what_boards_read_beside_a_suite_s_text_is_the_same(told, found, left_out):
    loaded = load(TINY)
    specs = expand(loaded)
    records = [change(empty_record(spec, "tiny", Metrics("accuracy"), "oom"), digest="0" * 64) for spec in specs]
    with Recompute() as deeper:
        assert [why for _, _, why in deeper.suite({**loaded.described(specs), **told}, records)] == found
        assert [why.removesuffix(" or published weights") for why in deeper.left_out] == left_out


def test_rows_and_keys_that_a_suite_s_author_left_out_are_said():
    short = load({**load("findings").source.data, "seeds": [0]})
    one, *specs = expand(short)
    own = [spec for spec in specs if spec.cell != one.cell]
    records = [change(empty_record(spec, "findings", Metrics("accuracy"), "oom"), digest="0" * 64) for spec in own]
    with Recompute() as deeper:
        assert [*deeper.suite(short.described(own), records)] == []
        assert deeper.left_out == {
            "their suite is not findings as it ships here, but in seeds": len(own),
            f"1 row(s) of their suite have no run here, such as {one.task_label} · {one.architecture_label}": len(own),
        }


def test_published_records_without_a_digest_are_known():
    shipped = [store.read(run_id) for store in stores(Path("results")) for run_id in store.ids()[::20]]
    assert len(shipped) > 20
    for record in shipped:
        assert not [*problems(record)]
        forged = change(record, provenance__commit="0" * 40)
        assert record.digest or "digest" in {what for what, _ in problems(forged)}


def test_a_record_that_was_edited_has_no_rank(store, tmp_path, call):
    shutil.copytree(store.folder, tmp_path / "tiny")
    file = next((tmp_path / "tiny").glob("*/record.json"))
    data = json.loads(file.read_text())
    data["metrics"]["test"]["accuracy"] = 1.0
    file.write_text(json.dumps(data))
    assert read_record(file).digest
    shown = call("board", "tiny", "--results", tmp_path, "--json").stdout
    assert "unsound record: digest: was changed after it was written" in shown
    assert "1 of 2 seeds failed" in shown


def test_a_suite_that_cannot_be_read_is_a_finding_and_the_others_are_checked(store, tmp_path, call):
    for name in ("tiny", "other"):
        shutil.copytree(store.folder, tmp_path / name)
    (tmp_path / "other" / "published.json").mkdir()
    (tmp_path / "tiny" / "suite.json").write_text("[]")
    said = call("verify", tmp_path, status=1).stdout
    assert f"{tmp_path}/other/published.json: is a directory" in said
    assert f"{tmp_path}/tiny/suite.json: not JSON: must hold a JSON object" in said
