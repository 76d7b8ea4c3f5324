"""Tables that other libraries wrote are read back cell by cell; what is ambiguous or wrong is said in one line."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks
from tasks import DataError
from tasks.corpora import tabular
from tasks.corpora.tabular import Column

ROWS = [("ein Haus", "a house"), ("Öl, viel", 'so-called "oil"'), ("drei\u2028Zeilen", "2001-01-01"), ("NA", "null")]


def parquet_of(records: list[dict]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(records), file)
    return file.getvalue()


def delimited(rows, separator=",", **options) -> bytes:
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n", **options).writerows(rows)
    return file.getvalue().encode()


def json_lines(records) -> bytes:
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records).encode()


@pytest.fixture
def read(tmp_path):
    def read(name, content, source=None, target=None, **options):
        (tmp_path / name).write_bytes(content)
        columns = Column("source", source), Column("target", target)
        return tabular.read("pairs", *columns, path=str(tmp_path / name), **options).rows

    return read


RECORDS = [{"id": n, "target": t, "source": s, "translation": {"de": s, "en": t}} for n, (s, t) in enumerate(ROWS)]
PLAIN = [("source", "target"), *ROWS]
PLACES = {"source": 2, "target": 1}


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", delimited(ROWS), {}),
        ("b.csv", delimited(PLAIN), {}),
        ("c.csv", b"\xef\xbb\xbf" + delimited([("n", "Target ", "SOURCE"), *((1, t, s) for s, t in ROWS)]), {}),
        ("d.csv", delimited([("en", "de"), *((t, s) for s, t in ROWS)]), {"source": "de", "target": "en"}),
        ("e.csv", delimited([(t, s) for s, t in ROWS]), PLACES),
        ("f.tsv", "".join(f"{s}\t{t}\r\n" for s, t in PLAIN).encode() + b"\r\n\r\n", {}),
        ("g.tsv", delimited(PLAIN, "\t", quoting=csv.QUOTE_ALL), {"quotes": True}),
        ("h.txt", "".join(f"{s}\t{t}\n" for s, t in ROWS).encode(), {}),
        ("i.jsonl", json_lines(RECORDS), {}),
        ("j.jsonl", json_lines(RECORDS), {"source": "translation.de", "target": "translation.en"}),
        ("k.parquet", parquet_of(RECORDS), {}),
        ("l.parquet", parquet_of(RECORDS), {"source": "translation.de", "target": "translation.en"}),
    ],
)
def test_every_format_gives_the_same_rows(read, name, content, options):
    assert read(name, content, **options) == ROWS


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1))
def test_csv_is_read_as_it_was_written(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("table") / "a.csv"
    file.write_bytes(delimited([("source", "target"), *rows], quoting=csv.QUOTE_ALL))
    assert tabular.read("pairs", Column("source"), Column("target"), path=str(file)).rows == rows


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        (
            "a.csv",
            b"en,de\na b,c\n",
            {},
            "a.csv has no column 'source'; known: de, en (name the columns: source: NAME",
        ),
        ("a.csv", b"source,targets\na b,c\n", {}, "a.csv has no column 'target'; did you mean 'targets'?"),
        ("a.csv", b"1,a,b\n", {}, "or, if the first line is no header, count them: source: 1, target: 2)"),
        ("a.csv", b"de,en\na,b\n", {"source": "De", "target": "fr"}, "a.csv has no column 'fr'; known: de, en"),
        ("a.csv", b"a,b\n", {"source": 1, "target": 3}, "a.csv has 2 columns: target: 3 is none of them"),
        ("a.csv", b"source,target\na,b\nc,d,e\n", {}, "a.csv cannot be read: Expected 2 fields in line 3, saw 3"),
        ("a.csv", b'source,target\n"a,b\n', {}, "a.csv cannot be read: EOF inside string starting at row 2"),
        ("a.csv", b"source,target\na,b\n,d\n", {}, "a.csv, row 3, column source: it is empty"),
        ("a.csv", b"source,target\na,b\nc\xff,d\n", {}, "a.csv is not UTF-8 in line 3: save it as UTF-8"),
        ("a.csv", b"source,target\n", {}, "a.csv holds no rows"),
        ("a.jsonl", b'{"source": "a"}\n', {}, "a.jsonl has no column 'target'; known: source"),
        ("a.jsonl", b'{"source": "a", "target": "b"}\n{"source": "c"}\n', {}, "row 2, column target: it is empty"),
        ("a.jsonl", b'{"source": "a", "target": ["b"]}\n', {}, "row 1, column target: expected text, found list"),
        ("a.jsonl", b'{"source": "a", "target": "b"}\n{"sou\n', {}, "a.jsonl, row 2 is not JSON: Unterminated string"),
        ("a.jsonl", b'["a", "b"]\n', {}, "a.jsonl, row 1 is not an object"),
        ("a.jsonl", b'{"source": 1}\n{"source": "c"}\n', {}, "a.jsonl cannot be read as jsonl: Could not convert"),
        ("a.jsonl", b"\n", {}, "a.jsonl is empty"),
        ("a.jsonl", b'{"source": 100000000000000000000, "target": "b"}\n', {}, "a.jsonl cannot be read as jsonl: "),
        ("a.parquet", parquet_of(RECORDS)[:-40] + b"PAR1", {}, "a.parquet cannot be read as parquet: "),
        ("a.parquet", b"PAR1", {}, "a.parquet cannot be read as parquet: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(read, name, content, options, message):
    with pytest.raises(DataError) as error:
        read(name, content, **options)
    assert message in str(error.value)
    assert str(error.value).startswith("pairs: ")
    assert "\n" not in str(error.value)


def test_the_same_bytes_read_otherwise_are_another_content(tmp_path):
    (tmp_path / "a.csv").write_bytes(delimited(PLAIN))

    def content(source, target):
        columns = Column("source", source), Column("target", target)
        return tabular.read("pairs", *columns, path=str(tmp_path / "a.csv")).content

    assert len({content(None, None), content("target", "source"), content(1, 2), content(2, 1)}) == 4


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub client that is offline, and has one data set in its cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("ZOOBENCH_OFFLINE", "1")
    repo = tmp_path / "datasets--someone--words"
    folder = repo / "snapshots" / ("b" * 40) / "de-en"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("b" * 40)
    folder.mkdir(parents=True)
    for n in range(2):
        records = [{"translation": {"de": f"Haus {i}", "en": f"house {i}"}} for i in range(300 * n, 300 * n + 300)]
        (folder / f"train-{n:05}-of-00002.parquet").write_bytes(parquet_of(records))
    (folder / "test.jsonl").write_bytes(json_lines([{"translation": {"de": "Test", "en": "test"}}]))


def test_a_split_of_a_hub_data_set(hub):
    names = {"source": "translation.de", "target": "translation.en"}
    task = tasks.build("pairs", hub="someone/words", **names)
    assert set(task._own.rows) == {(f"Haus {i}", f"house {i}") for i in range(600)}
    assert tasks.build("pairs", hub="someone/words/de-en", **names).fingerprint == task.fingerprint
    with pytest.raises(DataError, match="pairs: someone/words has 1 pairs"):
        tasks.build("pairs", hub="someone/words", split="test", **names)
    with pytest.raises(DataError, match=r"pairs: hub data set someone/words has no file .* of split 'valid'"):
        tasks.build("pairs", hub="someone/words", split="valid", **names)
    with pytest.raises(DataError, match="someone/other: it is not here, and ZOOBENCH_OFFLINE forbids the network"):
        tasks.build("pairs", hub="someone/other", **names)
