"""Every record as tables: for pandas, and for SQL."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.records.curves import curves_table
from harness.records.published import CURVES, RECORDS, records_table
from harness.records.record import Record
from harness.records.store import Store, default_root, read_or_damaged, stores

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def tables(suite: str | None = None, root: Path | None = None) -> "tuple[pa.Table, pa.Table]":
    """The records and the points of their curves, of one suite or of all that have results.

    The columns are those of `harness.records.published`. A run made here stands for its published record.

    Raises:
        UserError: there are no records.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    root, found = root or default_root(), []
    for store in [Store(suite, root)] if suite else stores(root):
        own = [one for path in store.own_files() if isinstance(one := read_or_damaged(path), Record)]
        found.append((records_table(own), curves_table(own)))
        if store.published.index:
            made = pa.array([record.run_id for record in own], pa.string())
            published = [store.published.table(name) for name in (RECORDS, CURVES)]
            found.append(tuple(t.filter(pc.invert(pc.is_in(t["run_id"], made))) for t in published))
    records = pa.concat_tables([pair[0] for pair in found]) if found else []
    if not len(records):
        raise UserError(f"no records yet; make some with: zoobench run {suite or 'quick'}", file=root / (suite or ""))
    return records, pa.concat_tables([pair[1] for pair in found])


def results(suite: str | None = None, root: Path | None = None) -> "pd.DataFrame":
    """Every record of a suite, or of all suites with results: a row a run, its JSON in columns `record.…`."""
    return tables(suite, root)[0].to_pandas()


def curves(suite: str | None = None, root: Path | None = None) -> "pd.DataFrame":
    """Every point of the curves of a suite, or of all with results: `run_id`, meters, loss, `scores` on valid."""
    frame = tables(suite, root)[1].to_pandas()
    frame["scores"] = [
        None if known is None else {one["name"]: one["value"] for one in known} for known in frame["scores"]
    ]
    return frame


def query(sql: str, root: Path | None = None) -> "pa.Table":
    """What DuckDB answers to a query of the tables `records` and `curves`. It sees no other file and no network.

    Raises:
        UserError: the query is wrong, there are no records, or DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise UserError("queries need DuckDB: pip install 'zoobench[query]'") from None
    records, points = tables(root=root)
    connection = duckdb.connect(config={"enable_external_access": "false", "lock_configuration": "true"})
    connection.register("records", records)
    connection.register("points", points)
    connection.sql("CREATE VIEW curves AS SELECT * REPLACE (map_from_entries(scores) AS scores) FROM points")
    try:
        answer: pa.Table = connection.sql(sql).to_arrow_table()
    except (duckdb.Error, AttributeError) as error:
        raise UserError(f"DuckDB: {error}") from None
    return answer
