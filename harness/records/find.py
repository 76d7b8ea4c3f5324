"""Finished runs by name, and their models with the weights they ended with."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.records.files import read_json
from harness.records.mirror import mirror_of
from harness.records.record import Record
from harness.records.store import MODEL, Store, default_root, read_record, stores
from zoo.files import user_path
from zoo.registry import nearest

if TYPE_CHECKING:
    from zoo.contract import Model


def find_run(reference: str, root: Path | None = None) -> Path | None:
    """The folder of a run, which a published one need not have; None where `reference` can be no run.

    Args:
        reference: a path to it; a run id, or the beginning of one that no other run shares; or labels after the suite,
            `quick/pre_ln`, `quick/pre_ln/text/0` (row, task, seed: what is left out must leave one run, but for seeds,
            of which the first is taken).

    Raises:
        UserError: several runs, or none where it can only be meant as one.
    """
    path, root = Path(os.path.abspath(user_path(reference))), root or default_root()  # . and .. lack the run's name
    if (path / "record.json").is_file():
        return path
    if path.name == "record.json" and path.is_file():
        return path.parent
    if re.fullmatch(r"[0-9a-f]{4,16}", reference):
        found = [s.run_folder(run_id) for s in stores(root) for run_id in s.ids() if run_id.startswith(reference)]
        if len(found) > 1:
            raise UserError(f"{len(found)} runs begin with {reference}: {', '.join(p.name for p in found[:4])}")
        if found:
            return found[0]
        if not path.exists():
            raise UserError(f"no run {reference} under {root}; --results names another folder")
    suite, _, rest = reference.partition("/")
    if not path.exists() and rest and Store(suite, root).ids():
        return _labelled(root / suite, rest.split("/"), reference)
    return None


def record_of(folder: Path) -> Record:
    """The record of a run's folder, also of one that is only published.

    Raises:
        UserError: there is none.
    """
    if (folder / "record.json").is_file():
        return read_record(folder / "record.json")
    record = Store(folder.parent.name, folder.parent.parent).read(folder.name)
    if record is None:
        raise UserError("no record of this run", file=folder)
    return record


def _labelled(folder: Path, given: list[str], reference: str) -> Path:
    """The run of a suite that has every one of these labels, in the order row, task, seed."""
    finals = [record for record in Store(folder.name, folder.parent).records() if record.spec.kind == "final"]
    for at, label in enumerate(given):
        names = sorted({name for record in finals for name in labels(record)[at : at + 1]})
        finals = [record for record in finals if labels(record)[at : at + 1] == [label]]
        if not finals:
            raise UserError(f"{reference}: no run {label!r} there{nearest(label, names)}")
    cells = {tuple(labels(record)[:-1]) for record in finals}
    if len(cells) > 1:
        raise UserError(f"{reference}: several runs; say which: {', '.join('/'.join(c) for c in sorted(cells)[:6])}")
    return folder / min(finals, key=lambda record: record.spec.seed).run_id


def labels(record: Record) -> list[str]:
    """What a run is called after its suite: row, task, track if there are any, seed."""
    architecture, task, track = record.spec.cell
    return [architecture, task, *filter(None, [track]), str(record.spec.seed)]


def tokenizer_of(folder: Path) -> dict[str, Any] | None:
    """What turns text into the tokens of a run's model, as its folder describes it; None without one, or weights."""
    described = _description(folder)
    return described and described["tokenizer"]


def open_model(reference: str, root: Path | None = None, **options: Any) -> Model:
    """The model of a run, or what `zoo.load` opens: a path, `KIND:…`, `hf:` and an id on the hub; in eval mode.

    What is neither is not looked for on the hub: it may be a run's name, mistyped.

    Args:
        options: of `zoo.load`; a run has only `plugins`, code to import first.

    Raises:
        UserError: no such run or model, a run without weights, or weights that do not fit.
    """
    from zoo.published import PretrainedError, load

    run = find_run(reference, root)
    try:
        if run is None:
            _check_place(reference, root or default_root())
            return load(reference, **options)
        plugins = options.pop("plugins", ())
        if options:
            raise UserError(f"a run is opened as it is; {', '.join(options)} is for published weights", file=run)
        if _description(run) is None:
            raise UserError(_without_weights(record_of(run)), file=run)
        return load(run / MODEL, kind="zoo", plugins=plugins)
    except PretrainedError as error:
        raise UserError(str(error)) from None


def _check_place(reference: str, root: Path) -> None:
    """Raises a UserError for what is no path here and says no scheme; it names the nearest suite that has results."""
    from zoo.published import KINDS

    scheme, colon, _ = reference.partition(":")
    if (colon and scheme in ("hf", "local-dir", *KINDS)) or reference == "typeseg" or reference.startswith("timm/"):
        return
    if Path(reference).expanduser().exists():
        return
    suite, slash, rest = reference.partition("/")
    near = get_close_matches(suite, [path.name for path in root.glob("*/")] if slash else [], n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}/{rest}?" if near else f"; a model on the hub is hf:{reference}" if slash else ""
    raise UserError(f"{reference}: no run under {root}, and no such file or folder{hint}")


def _without_weights(record: Record) -> str:
    if record.status != "ok":
        return f"this run did not end well ({record.status}): it has no weights"
    if record.spec.kind == "trial":
        return "a trial keeps no weights, only final runs do"
    return (
        "no weights here: published runs come without, and so do those of a suite with `weights: drop`; "
        f"make them again with: zoobench run {record.suite} --ignore-published"
    )


def _description(run: Path) -> dict[str, Any] | None:
    """What lies beside the weights of a run; None without any."""
    if mirror := mirror_of(run.parent.parent):
        mirror.fetch(f"{run.parent.name}/{run.name}/{MODEL}", weights=True)
    file = run / MODEL / "zoo.json"
    return read_json(file) or None
