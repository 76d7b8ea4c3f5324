"""Bundles that were tampered with are refused, each with its reason; an honest one from another folder passes."""

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from harness.commands.status import status
from harness.errors import UserError
from harness.execute.rerun import compare, draw, rerun
from harness.plan.expand import expand
from harness.plan.wanted import wanted
from harness.records.checks import sealed
from harness.records.curves import curves_table
from harness.records.published import INDEX, RECORDS, records_table, sha256
from harness.records.record import Answer, AnswerMetric, LmEval
from harness.records.store import Store
from harness.sharing.bundle import pack, submit, unpack
from harness.sharing.review import review
from harness.suite.load import load

from ..conftest import TINY
from ..made import do
from ..planted import change


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The suite of the reviewer, who has no results."""
    path = tmp_path_factory.mktemp("reviewer") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY, sort_keys=False))
    return load(path)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """The bundle of somebody who made every run of the same suite elsewhere, in this process."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "theirs.yaml").write_text(yaml.safe_dump({**TINY, "about": "a copy"}, sort_keys=False))
    store = Store("tiny", folder / "results")
    for spec in expand(load(folder / "theirs.yaml")):
        store.write(do(spec, store.run_folder(spec.run_id)))
    return submit(str(folder / "theirs.yaml"), "Ada", folder / "ada.zip", root=folder / "results")[0]


@pytest.fixture(scope="module")
def records(honest, tmp_path_factory):
    bundle = unpack(honest, tmp_path_factory.mktemp("unpacked"))
    return [bundle.record(run_id) for run_id in bundle.ids()]


@pytest.fixture
def findings(tiny, tmp_path, quiet):
    """Reviews a bundle, or records packed as one, and makes none of its runs again; what it finds."""

    def found(given, suite=None):
        if not isinstance(given, Path):
            given = [sealed(record) for record in given]
            pack(tmp_path / "forged.zip", given, suite or tiny.described(r.spec for r in given), "Eve")
            given = tmp_path / "forged.zip"
        return [str(finding) for finding in review(given, tiny, count=0, console=quiet).findings]

    return found


def test_an_honest_bundle_passes(honest, tiny, quiet):
    found = review(honest, tiny, count=0, console=quiet)
    assert (found.findings, found.contributor, len(found.records)) == ([], "Ada", 4)
    assert str(found) == "ada.zip: accepted, 4 runs by Ada, none made again: only its form is checked"


def test_equal_runs_make_equal_bundles(honest, records, tmp_path):
    with zipfile.ZipFile(honest) as bundle:
        index = json.loads(bundle.read(INDEX))
        assert {info.compress_type for info in bundle.infolist()} == {zipfile.ZIP_STORED}
    assert index["environment"]["packages"] == [records[0].provenance.packages]
    pack(tmp_path / "again.zip", records[::-1], index["suite"], "Ada")
    assert (tmp_path / "again.zip").read_bytes() == honest.read_bytes()


PASSED_ANYWAY = {"eligibility__gates": lambda gates: gates | {"causal": change(gates["causal"], measured=9.0)}}
UNJUDGED = {"eligibility__gates": lambda gates: {name: gate for name, gate in gates.items() if name != "causal"}}
ANSWERS = LmEval(
    "0.4.13", {}, ("sums",), {"sums": Answer(1, "f00d", 8, 0, None, {"acc": AnswerMetric(1.0)})}, {}, {}, 1.0
)
FORGED = {
    "budget": ({"budget__used__tokens": lambda tokens: tokens // 2}, "budget", "FLOPs for 96 tokens of"),
    "longer": ({"budget__used__steps": 7}, "budget", "used 7 steps of 6"),
    "shorter": ({"budget__used__steps": 5}, "budget", "ended after 5 steps of 6"),
    "stop rule": ({"budget__stop__limit": 60}, "budget", "its stop rule is not that of its spec"),
    "flops": ({"budget__used__flops": 1}, "budget", "1 FLOPs for"),
    "speed": ({"speed__train_tokens_per_s": 1e9}, "speed", "1000000000.0 tokens a second"),
    "accuracy": ({"metrics__test": lambda scores: scores | {"accuracy": 1.5}}, "scores", "accuracy is 1.5 on test"),
    "metric": ({"metrics__primary": "loss"}, "scores", "ranked by loss, not by accuracy"),
    "no test": ({"metrics__test": {}}, "scores", "scored on valid, not on test, valid"),
    "no curve": ({"curve": []}, "curve", "does not end where the run did"),
    "flat curve": ({"curve": lambda curve: [curve[-1], *curve[1:]]}, "curve", "does not rise"),
    "no gate": (UNJUDGED, "gates", "not judged by causal"),
    "skipped gate": ({"eligibility__skipped": ("causal",)}, "gates", "skipped causal; its spec skips none"),
    "failed gate": (PASSED_ANYWAY, "gates", "causal passed with 9.0 measured"),
    "unranked": ({"eligibility__ranked": lambda ranked: not ranked}, "gates", "be ranked, against its gates"),
    "answers": ({"lm_eval": ANSWERS}, "scores", "answers questions that the suite does not ask"),
    "data": ({"data__stream_marks": lambda marks: marks | {"2": "f00d" * 8}}, "data", "other batches by step 2"),
    "data at the end": ({"data__stream_hash": "f00d" * 8}, "data", "consumed other batches by step 6"),
    "no data": ({"data__stream_marks": {}}, "data", "1 hashes of its data, not those of 6 steps"),
    "size": ({"size__params": 7}, "size", "7 parameters, "),
    "suite": ({"suite": "quick"}, "suite", "made for another suite, quick"),
}  # fmt: skip
"""By name: what is changed in one record, what finds it, and the reason."""


@pytest.mark.parametrize("name", FORGED)
def test_a_record_that_contradicts_itself_or_its_suite_is_refused(name, records, findings):
    changes, what, why = FORGED[name]
    first, *rest = records
    new = {}
    for path, value in changes.items():
        old = first
        for part in path.split("__"):
            old = getattr(old, part)
        new[path] = value(old) if callable(value) else value
    found = findings([change(first, **new), *rest])
    assert any(line.startswith(f"{what}: {first.spec.title()}") and why in line for line in found), found


def test_swapped_curves_are_refused(records, findings):
    one, two, *rest = records
    found = findings([one.replace(curve=two.curve), two.replace(curve=one.curve), *rest])
    assert {line.partition(":")[0] for line in found} == {"curve"}


def test_every_seed_must_be_there_and_no_run_that_the_suite_lacks(records, findings, tiny):
    first = records[0]
    (found,) = findings(records[1:])
    assert found == f"runs: {first.spec.title()} ({first.run_id}): missing; a bundle has every run of its architectures"
    other = first.spec.replace(seed=7)
    (found,) = findings([*records, first.replace(spec=other, run_id=other.run_id)])
    assert found == f"runs: {other.title()} ({other.run_id}): no run of this suite"
    longer = [record.spec.replace(train=record.spec.train.replace(lr=0.5)) for record in records]
    found = findings(
        [record.replace(spec=spec, run_id=spec.run_id) for record, spec in zip(records, longer, strict=True)]
    )
    assert len([line for line in found if "no run of this suite; differs in train.lr" in line]) == 4
    lstm = [record for record in records if record.spec.architecture == "lstm"]
    assert findings(lstm) == [], "others may make the other rows"
    assert findings([]) == ["runs: records.parquet: holds none"]


def test_the_seeds_that_the_rule_adds_must_be_there_and_no_others(tmp_path, quiet):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "seeds": {"start": 2, "most": 3, "until": "separated"}}))
    loaded, store, known = load(path), Store("tiny", tmp_path / "results"), dict[str, Any]()
    while lacking := [spec for run_id, spec in wanted(loaded, known).items() if run_id not in known]:
        for spec in lacking:
            store.write(do(spec, store.run_folder(spec.run_id)))
            known[spec.run_id] = store.read(spec)
    assert len(known) == 6
    assert status(str(path), store.folder.parent)[0]["counts"]["to do"] == 0
    bundle = submit(str(path), "Ada", tmp_path / "ada.zip", root=store.folder.parent)[0]
    assert review(bundle, loaded, count=0, console=quiet).findings == []

    def findings(records):
        pack(tmp_path / "forged.zip", map(sealed, records), loaded.described(()), "Eve")
        return [str(finding) for finding in review(tmp_path / "forged.zip", loaded, count=0, console=quiet).findings]

    *most, late = sorted(known.values(), key=lambda record: record.spec.seed)
    (found,) = findings(most)
    assert found == f"runs: {late.spec.title()} ({late.run_id}): missing; a bundle has every run of its architectures"
    more = late.spec.replace(seed=3)
    (found,) = findings([*known.values(), late.replace(spec=more, run_id=more.run_id)])
    assert found == f"runs: {more.title()} ({more.run_id}): no run of this suite"


def test_what_is_missing_may_be_published_already(records, tiny, tmp_path, quiet):
    pack(tmp_path / "rest.zip", records[1:], tiny.described(()), "Ada")
    assert review(tmp_path / "rest.zip", tiny, ours=records[:1], count=0, console=quiet).accepted


def test_another_suite_is_refused(records, findings, tiny):
    other = tiny.described(()) | {"suite": "other"}
    assert findings(records, other) == ["suite: other: another suite than tiny"]


def rewritten(path, honest, stale=False, **tables):
    """A bundle with other tables of these names, under new hashes or the old ones."""
    with zipfile.ZipFile(honest) as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
    for name, table in tables.items():
        where = path.with_name(f"{name}.parquet")
        pq.write_table(table, where)
        files[where.name] = where.read_bytes()
        index = json.loads(files[INDEX])
        index["files"][where.name] = sha256(where)
        files[INDEX] = files[INDEX] if stale else json.dumps(index).encode()
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in files.items():
            bundle.writestr(zipfile.ZipInfo(name), content)
    return path


def test_edited_files_are_refused(honest, records, findings, tmp_path):
    better = [change(record, metrics__test={"loss": 0.1, "accuracy": 1.0}) for record in records]
    path = tmp_path / "edited.zip"
    found = findings(rewritten(path, honest, stale=True, records=records_table(better)))
    assert found == ["bundle: records.parquet: not the file that was published"]
    table = records_table(records)
    column = table.column_names.index("test")
    edited = table.set_column(column, "test", pa.array([1.0] * len(records)))
    found = findings(rewritten(path, honest, records=edited))
    assert len(found) == len([r for r in records if r.metrics.test["accuracy"] != 1.0])
    assert all("its column test is not what its record says" in line for line in found)
    found = findings(rewritten(path, honest, records=pa.concat_tables([table, table.slice(0, 1)])))
    assert found == [f"runs: {records[0].run_id}: stands there twice"]
    found = findings(rewritten(path, honest, records=records_table(records[:3])))
    assert found == ["curve: curves.parquet: holds other points than those of the runs, or in another order"]
    found = findings(rewritten(path, honest, curves=curves_table(records).drop_columns("loss")))
    assert "curves.parquet: has other columns than this zoobench writes" in found[0]
    found = findings(rewritten(path, honest, records=records_table([change(records[0], origin__kind="reviewed")])))
    assert "claims to be reviewed; only who merges says that" in found[0]


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [("budget.used", '"steps": 6', '"steps": "six"'), ("spec.seed", "0", "0.5"), ("segments", "[", "[" * 9999),
     ("eligibility", '"ranked": ', '"ranked": "\\u001b[31m",  "x": '), ("spec.role", '"', ""),
     ("eligibility", '"gates": {', '"gates": {"x": 1, '), ("spec.train", "{", "[{")],
)  # fmt: skip
def test_values_of_other_types_are_refused(column, old, new, honest, records, findings, tmp_path):
    table, name = records_table(records), f"record.{column}"
    texts = [text.replace(old, new) for text in table[name].to_pylist()]
    assert texts != table[name].to_pylist()
    edited = table.set_column(table.column_names.index(name), name, pa.array(texts))
    found = findings(rewritten(tmp_path / "edited.zip", honest, records=edited))
    assert found
    assert all(line.startswith("record: ") and line.isprintable() for line in found), found


def test_a_zip_that_is_no_bundle_is_refused(honest, findings, tmp_path):
    def packed(compression=zipfile.ZIP_STORED, **members):
        with zipfile.ZipFile(tmp_path / "bad.zip", "w", compression) as bundle:
            for name, content in members.items():
                bundle.writestr(name, content)
        return tmp_path / "bad.zip"

    with zipfile.ZipFile(honest) as bundle:
        files = {name: bundle.read(name) for name in bundle.namelist()}
    (found,) = findings(packed(**files, **{"../evil": b"x"}))
    assert "'../evil'; a bundle holds published.json, records.parquet, curves.parquet" in found
    assert not (tmp_path.parent / "evil").exists()
    (found,) = findings(packed(**{**files, RECORDS: b"0" * 10**6}, compression=zipfile.ZIP_DEFLATED))
    assert "is compressed; a bundle's files are stored" in found
    (found,) = findings(packed(**{**files, INDEX: b"0" * (1 << 24) + b"0"}))
    assert "published.json has more than 16,777,216 bytes" in found
    (found,) = findings(packed(**{**files, INDEX: b"[" * 10**5}))
    assert found.startswith("bundle: ")
    for size in (100, len(honest.read_bytes()) // 2, len(honest.read_bytes()) - 30):
        (tmp_path / "cut.zip").write_bytes(honest.read_bytes()[:size])
        (found,) = findings(tmp_path / "cut.zip")
        assert found.startswith("bundle: cut.zip: no whole zip file"), found


@pytest.mark.slow
def test_an_edited_score_with_new_hashes_is_found_by_making_the_run_again(honest, records, tiny, tmp_path, quiet):
    found = review(honest, tiny, count=1, console=quiet)
    assert (found.findings, len(found.again)) == ([], 1)
    better = [change(r, metrics__test=r.metrics.test | {"loss": r.metrics.test["loss"] * 0.999}) for r in records]
    pack(tmp_path / "forged.zip", [sealed(r) for r in better], tiny.described(()), "Eve")
    assert review(tmp_path / "forged.zip", tiny, count=0, console=quiet).accepted, "hashes prove nothing"
    (finding,) = review(tmp_path / "forged.zip", tiny, count=1, tolerance=0, console=quiet).findings
    assert finding.what == "again"
    assert "loss on test is" in finding.why
    assert "of its value apart and 0 allowed" in finding.why


def test_runs_are_compared_by_what_they_must_have_in_common(records):
    first = records[0]
    loss = first.metrics.test["loss"]
    near = change(first, metrics__test=first.metrics.test | {"loss": loss * 1.005})
    far = change(first, provenance__hardware="another")
    assert compare(first, first).problems == []
    assert "0 allowed" in compare(first, near).problems[0], "the same machine: to the last digit"
    assert compare(near, far).problems == [], "another one: within a hundredth"
    assert compare(near, far, tolerance=0.001).problems
    others = {"size__params": 7, "budget__used__flops": 7, "data__stream_hash": "f00d", "status": "diverged"}
    for path, value in {**others, "eligibility__gates": {}}.items():
        assert compare(change(first, **{path: value}), far).problems


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architecture": "pretrained"}, "its weights were made elsewhere"),
        (
            {"plugins": (("mine.py", "f00d"),)},
            r"made with other plug-ins than are here: mine.py \(f00d\); see --plugin",
        ),
        ({"architecture": "lsmt"}, "cannot be made here: unknown architecture 'lsmt'; did you mean 'lstm'"),
        ({"task_options": {"length": "long"}}, "cannot be made here: mqar: length must be a whole number"),
        ({"task_options": {}}, "the data here is other data"),
    ],
)
def test_what_cannot_be_made_again_says_why(changes, why, records, quiet):
    with pytest.raises(UserError, match=why):
        rerun(records[0].replace(spec=records[0].spec.replace(**changes)), console=quiet)


def test_every_row_is_as_likely_to_be_made_again(records):
    """Three rows, one of which has ten times as many runs, nine in ten of them trials."""
    runs = [r.replace(spec=r.spec.replace(seed=seed, kind=kind)) for r in records[:1]
            for seed, kind in [(0, "final"), *((i, "trial") for i in range(9))]]  # fmt: skip
    runs += [r.replace(spec=r.spec.replace(architecture_label=label)) for r in records[:1] for label in ("b", "c")]
    runs += [r.replace(status="oom", spec=r.spec.replace(architecture_label="d")) for r in records[:1]]
    drawn = [draw(runs, 1)[0].spec for _ in range(900)]
    rows = Counter(spec.architecture_label for spec in drawn)
    assert len(rows) == 3
    assert min(rows.values()) > 200
    own = Counter(spec.kind for spec in drawn if spec.architecture_label not in ("b", "c"))
    assert 0.5 < own["final"] / own["trial"] < 2
    assert len({r.spec.cell for r in draw(runs, 3)}) == 3, "no row twice before each was drawn"
    assert len(draw(runs, 99)) == 12
