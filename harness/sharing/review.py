"""The review of a bundle: what it says is checked against the reviewer's own suite, and some runs are made again."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from harness.errors import UserError, printable
from harness.execute.recompute import Recompute
from harness.execute.rerun import Rerun, draw, rerun
from harness.execute.runner import load_data
from harness.plan.wanted import foreign, wanted
from harness.records.checks import problems
from harness.records.curves import curves_table
from harness.records.published import COLUMNS, CURVES, RECORDS, Published, records_table, sha256
from harness.records.record import LmEval, Origin, Record
from harness.records.signature import allowed_signers, signer
from harness.records.spec import RunSpec
from harness.records.store import Store
from harness.records.together import together
from harness.records.verify import shuffled
from harness.sharing.bundle import unpack
from harness.suite.loaded import LoadedSuite


@dataclass(frozen=True)
class Finding:
    """A reason why a bundle is refused."""

    what: str
    """What was checked: `bundle`, `suite`, `runs`, `record`, `again`, or a name in `checks` or `together`."""
    where: str
    why: str

    def __str__(self) -> str:
        return printable(f"{self.what}: {self.where}: {self.why}")


@dataclass(frozen=True)
class Review:
    """What a review found; a bundle without findings is accepted."""

    file: Path
    sha256: str
    contributor: str = ""
    signed: str = ""
    """By whom, as the reviewer's file of allowed signers knows them; empty where there is none."""
    records: list[Record] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    again: list[Rerun] = field(default_factory=list)
    """The runs that were made again."""

    @property
    def accepted(self) -> bool:
        return not self.findings

    def __str__(self) -> str:
        if self.findings:
            return f"{self.file.name}: refused, {len(self.findings)} finding(s)"
        made = f"{len(self.again)} made again" if self.again else "none made again: only its form is checked"
        who = f"{self.contributor}, signed by {self.signed}" if self.signed else self.contributor
        return f"{self.file.name}: accepted, {len(self.records)} runs by {who}, {made}"

    def to_dict(self) -> dict[str, Any]:
        """The review as JSON."""
        about = {"file": str(self.file), "sha256": self.sha256, "contributor": self.contributor}
        about |= {"signed": self.signed} if self.signed else {}
        found = [dataclasses.asdict(finding) for finding in self.findings]
        again = [one.to_dict() for one in self.again]
        return {**about, "runs": len(self.records), "accepted": self.accepted, "findings": found, "again": again}


def trusted(store: Store) -> list[Record]:
    """The records that bundles of others are reviewed beside: all but those that were only reported."""
    return [record for record in store.records() if record.origin.kind != "reported"]


def review(
    file: Path,
    loaded: LoadedSuite,
    *,
    ours: Iterable[Record] = (),
    count: int = 1,
    tolerance: float | None = None,
    console: Console,
) -> Review:
    """Check a bundle against a suite, and make `count` of its runs again if nothing else is wrong with it.

    Args:
        loaded: the reviewer's own suite; only its plug-ins are run.
        ours: records that the reviewer trusts. They complete rows of which a bundle has only some runs.
        tolerance: see `harness.execute.rerun.compare`.

    Raises:
        UserError: the data of the suite is not here.
    """
    made, known = Review(file, sha256(file)), list(ours)
    try:
        with TemporaryDirectory() as folder:
            bundle = unpack(file, Path(folder))
            records, findings = _read(bundle)
            index, signed = bundle.index, signer(Path(folder)) if allowed_signers() else ""
    except RecursionError:
        return dataclasses.replace(made, findings=[Finding("bundle", file.name, "nested too deeply")])
    except UserError as error:
        where = file.name if error.file is None else Path(error.file).name
        return dataclasses.replace(made, findings=[Finding("bundle", where, error.message)])
    findings += _manifest(index, loaded)
    for check in (_runs, _each, _together):
        findings = findings or list(check(loaded, records, known))
    chosen = [] if findings else draw(records, count)
    plugins = [where for _, where in loaded.plugins]
    again = [rerun(record, plugins=plugins, tolerance=tolerance, console=console) for record in chosen]
    findings += [Finding("again", _place(one.record.spec), why) for one in again for why in one.problems]
    who = str(index.get("contributor") or "")
    return dataclasses.replace(made, contributor=who, signed=signed, records=records, findings=findings, again=again)


def _place(spec: RunSpec) -> str:
    """A run in words, with its id."""
    return f"{spec.title()} ({spec.run_id})"


def _read(bundle: Published) -> tuple[list[Record], list[Finding]]:
    """The records of a bundle, and what is wrong with its rows: each is one run, and its columns say what it says."""
    table = bundle.table(RECORDS)
    ids = [str(run_id) for run_id in table["run_id"].to_pylist()]
    if twice := [run_id for run_id, times in Counter(ids).items() if times > 1]:
        return [], [Finding("runs", run_id, "stands there twice") for run_id in twice]
    records, findings = dict[str, Record](), []
    for run_id in bundle.ids():
        try:
            records[run_id] = _sound(bundle.record(run_id), run_id)
        except (UserError, TypeError, ValueError, RecursionError) as error:
            findings.append(Finding("record", run_id, f"is not as records are: {error}"[:300]))
    if findings:
        return [], findings
    ordered = [records[run_id] for run_id in ids]
    if not curves_table(ordered).equals(bundle.table(CURVES)):
        findings.append(Finding("curve", CURVES, "holds other points than those of the runs, or in another order"))
    for name in COLUMNS:
        said, meant = (one[name].to_pylist() for one in (table, records_table(ordered)))
        other = [record for record, one, two in zip(ordered, said, meant, strict=True) if one != two]
        findings += [Finding("record", _place(r.spec), f"its column {name} is not what its record says") for r in other]
    return ordered, findings


def _sound(record: Record, run_id: str) -> Record:
    """A record whose id is its own, and that claims no review.

    Raises:
        UserError: it is not.
    """
    if {record.run_id, record.spec.run_id} != {run_id}:
        raise UserError(f"its id is not the hash of its own spec and data ({record.spec.run_id})")
    if record.origin != Origin():
        raise UserError(f"claims to be {record.origin.kind}; only who merges says that")
    return record


def _manifest(index: dict[str, Any], loaded: LoadedSuite) -> Iterator[Finding]:
    """The suite a bundle is of, and who made it."""
    suite, who = index.get("suite"), index.get("contributor")
    name = suite.get("suite") if isinstance(suite, dict) else None
    if name != loaded.name:
        yield Finding("suite", str(name), f"another suite than {loaded.name}")
    if not isinstance(who, str) or not who.strip() or len(who) > 100 or not who.isprintable():
        yield Finding("bundle", "contributor", "no name on one line, at most 100 letters long")
    elif "signed" in who.lower():
        yield Finding("bundle", "contributor", "says itself that it is signed")


def _runs(loaded: LoadedSuite, records: list[Record], ours: list[Record]) -> Iterator[Finding]:
    """The runs are the suite's, and of every architecture all that it has there."""
    if not records:
        yield Finding("runs", RECORDS, "holds none")
    known = wanted(loaded, {record.run_id: record for record in [*records, *ours]})
    for record in records:
        if record.run_id not in known:
            yield Finding("runs", _place(record.spec), foreign(record.spec, known.values()))
        elif record.suite != loaded.name:
            yield Finding("suite", _place(record.spec), f"made for another suite, {record.suite}")
    there = {record.run_id for record in [*records, *ours]}
    labels = {record.spec.architecture_label for record in records}
    for spec in known.values():
        if spec.architecture_label in labels and spec.run_id not in there:
            yield Finding("runs", _place(spec), "missing; a bundle has every run of its architectures")


def _each(loaded: LoadedSuite, records: list[Record], ours: list[Record]) -> Iterator[Finding]:
    """Each record by itself, and beside what its spec gives here."""
    load_data(loaded, [record.spec for record in records])
    found = list[Finding]()
    with Recompute([where for _, where in loaded.plugins]) as deeper:
        for record in shuffled(records):
            own = list(problems(record))
            own += [] if own else deeper(record)
            if record.lm_eval is not None and not _asked(record.lm_eval, loaded):
                own.append(("scores", "answers questions that the suite does not ask, or not on its terms"))
            found += (Finding(what, _place(record.spec), why) for what, why in own)
    yield from sorted(found, key=lambda finding: finding.where)


def _asked(answers: LmEval, loaded: LoadedSuite) -> bool:
    """Whether the suite asks, on these terms, what was answered."""
    asked = loaded.suite.lm_eval
    return asked is not None and answers.terms == asked.terms() and {*answers.names} <= {*asked.tasks}


def _together(loaded: LoadedSuite, records: list[Record], ours: list[Record]) -> Iterator[Finding]:
    """What runs have in common, such as the data of a task and seed, and the size of a row."""
    yield from (Finding(what, _place(record.spec), why) for record, what, why in together(records, ours))
