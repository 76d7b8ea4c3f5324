"""Published suites: nothing is lost in Parquet, one's own runs come first, and SQL sees what pandas does."""

import math
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import harness
from harness.errors import UserError
from harness.records.curves import curves_table
from harness.records.frames import curves, query, results
from harness.records.record import CurvePoint, Error, Origin
from harness.records.store import Store

from ..made import make_record, make_spec

POINTS = [
    CurvePoint(1, 1, 3, 0.1, 1.5, {"accuracy": 0.1 + 0.2, "loss": 1 / 3}),
    CurvePoint(2, 2, 2**52 + 1, 0.2, None),
    CurvePoint(3, 3, 9, 0.3, -1e-300, {}, extra={"later": [1, {"a": None}]}),
]
ODD = make_spec(architecture_label="<b>é\x1b[31m\"'\n=1+1", task="mqar", seed=2**40)


@pytest.fixture
def store(tmp_path):
    """Three published records of which one was made here again, and one more made here."""
    first = make_record(make_spec(seed=0), 0.5).replace(curve=POINTS, origin=Origin("reported", "Ada"))
    odd = make_record(ODD, 0.25).replace(error=Error("Odd", "what\x00ever"), extra={"unknown": 2**70})
    twice = make_record(make_spec(seed=1), 0.75)
    store = Store("tiny", tmp_path)
    store.publish([first, odd, twice], {"suite": "tiny"}, note="kept")
    store.write(twice.replace(curve=POINTS[:1]))
    store.write(make_record(make_spec(seed=2), 1.0))
    return store


def test_a_record_comes_back_from_parquet_as_it_was(store):
    published = Store("tiny", store.folder.parent).published
    by_seed = {record.spec.seed: record for record in map(published.record, published.ids())}
    assert by_seed[0].curve == POINTS
    assert [type(point.flops) for point in by_seed[0].curve] == [int] * 3
    assert by_seed[0].origin == Origin("reported", "Ada")
    assert by_seed[0] == make_record(make_spec(seed=0), 0.5).replace(curve=POINTS, origin=Origin("reported", "Ada"))
    odd = by_seed[2**40]
    assert (odd.spec, odd.error.message, odd.extra) == (ODD, "what\x00ever", {"unknown": 2**70})
    assert published.index["note"] == "kept"
    published.check()


def test_what_was_made_here_stands_for_what_was_published(store):
    records = {record.spec.seed: record for record in store.records()}
    assert set(records) == {0, 1, 2, 2**40}
    assert records[1].curve == POINTS[:1]
    assert [store.made_here(records[seed].run_id) for seed in (0, 1, 2)] == [False, True, True]
    assert {*store.ids()} == {record.run_id for record in records.values()}
    own = Store("tiny", store.folder.parent, ignore_published=True)
    assert [record.spec.seed for record in sorted(own.records(), key=lambda r: r.spec.seed)] == [1, 2]
    assert records[0].run_id not in own.ids()


def test_tables_and_sql_hold_the_same_records(store):
    root = store.folder.parent
    frame = results("tiny", root)
    assert sorted(frame["seed"]) == [0, 1, 2, 2**40]
    assert frame.set_index("seed")["valid"].to_dict() == {0: 0.5, 1: 0.75, 2: 1.0, 2**40: 0.25}
    assert len(curves("tiny", root)) == len(POINTS) + 1
    (row,) = query("SELECT avg(valid) AS mean, count(*) AS n FROM records", root).to_pylist()
    assert row == {"mean": fmean(frame["valid"]), "n": 4}
    joined = "SELECT max(scores['accuracy']) AS best FROM curves JOIN records USING (run_id) WHERE seed = 0"
    assert math.isclose(query(joined, root).to_pylist()[0]["best"], 0.1 + 0.2)
    assert harness.results is results


@pytest.mark.parametrize(
    "sql",
    ["SELEC 1", "SELECT nothing FROM records", "COPY records TO 'x.csv'", "SELECT * FROM read_csv('/etc/passwd')"],
)
def test_queries_that_cannot_be_answered_touch_no_file(store, sql, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="DuckDB"):
        query(sql, store.folder.parent)
    assert not (tmp_path / "x.csv").exists()


def test_a_damaged_row_is_told_and_the_others_are_read(store):
    path = store.folder / "records.parquet"
    table = pq.read_table(path)
    damage = {"record.metrics.test": '{"accuracy": "1"}', "record.spec.seed": "1]", "record.schema": "2"}
    for name, wrong in damage.items():
        texts = [wrong, *table[name].to_pylist()[1:]]
        pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(texts)), path)
        one, *others = Store("tiny", store.folder.parent).published.records()
        assert getattr(one, "status", "") == "damaged" if name != "record.spec.seed" else isinstance(one, UserError)
        assert {record.status for record in others} == {"ok"}


def test_no_records_and_damaged_files_are_told(store, tmp_path):
    with pytest.raises(UserError, match="no records yet"):
        results("nothing", tmp_path)
    pq.write_table(pa.table({"run_id": ["a"], "scores": [1.0]}), store.folder / "curves.parquet")
    published = Store("tiny", tmp_path).published
    with pytest.raises(UserError, match=r"curves\.parquet: has other columns"):
        published.record(published.ids()[0])
    wild = [["a"], [1], [1], [math.inf], [1.0], [1.0], [None], [None]]
    pq.write_table(pa.table(wild, schema=curves_table([]).schema), store.folder / "curves.parquet")
    with pytest.raises(UserError, match="numbers or names that no curve has"):
        Store("tiny", tmp_path).published.record(published.ids()[0])
    (store.folder / "records.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"records\.parquet: cannot be read"):
        Store("tiny", tmp_path).records()
