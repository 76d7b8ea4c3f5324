"""The lists of what is known, and the page of architectures made from them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import zoo
from harness import listing
from harness.cli import main
from zoo import proofs

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_in_the_docs_is_up_to_date():
    """`make proofs` writes it."""
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == listing.markdown()


def test_every_architecture_has_a_row_with_its_paper_source_and_proofs():
    rows = {row["name"]: row for row in listing.rows("architectures")}
    assert rows.keys() == set(zoo.names())
    for name, row in rows.items():
        assert row["roles"], name
        assert row["paper"], name
        assert row["source"], name
        assert row["about"].endswith("."), name
        assert [proof["oracle"] for proof in row["oracles"]] == [proof.oracle for proof in proofs.of(name)]
    unproven = {name for name, row in rows.items() if not row["oracles"]}
    assert unproven == {"hybrid", "h3_attention"}, "made of parts that are proven by themselves"


def test_proofs_keep_the_limits():
    for name in zoo.names():
        for proof in proofs.of(name):
            assert proof.output is not None, name
            assert proof.output <= 2e-5, (name, proof)
            assert proof.gradient is None or proof.gradient <= 1e-4, (name, proof)


def test_the_same_rows_in_every_form():
    as_json = CliRunner().invoke(main, ["ls", "architectures", "--json"])
    page = CliRunner().invoke(main, ["ls", "architectures", "--markdown"])
    table = CliRunner().invoke(main, ["ls", "architectures"])
    for row in json.loads(as_json.stdout):
        assert f"| [`{row['name']}`](#{row['name']}) |" in page.stdout
        assert row["name"] in table.stdout
        for deviation in row["deviations"]:
            assert f"- deviation: {deviation}\n" in page.stdout


@pytest.mark.parametrize("what", ["tasks", "suites", "corpora"])
def test_only_architectures_have_a_page(what):
    result = CliRunner().invoke(main, ["ls", what, "--markdown"])
    assert result.exit_code == 2
    assert "--markdown" in result.stderr
