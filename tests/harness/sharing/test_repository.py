"""A repository for a leaderboard: what `new --board` writes works as it is."""

import re
import subprocess

import pytest
import yaml

from harness.plan.expand import expand
from harness.suite.load import load


@pytest.fixture
def repository(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    said = call("new", "--board", "7-toys").stdout
    assert said.count("wrote 7-toys/") == 7
    return tmp_path / "7-toys"


def test_its_suite_is_valid_and_its_card_names_the_files_of_that_suite(repository):
    loaded = load(repository / "7-toys.yaml")
    assert (loaded.name, len(expand(loaded))) == ("7-toys", 9)
    _, front, text = (repository / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["pretty_name"] == "7-toys"
    files = [one["data_files"] for one in card["configs"]]
    assert files == ["results/7-toys/records.parquet", "results/7-toys/curves.parquet"]
    for path in re.findall(r"\]\((?!results)([^)]+)\)", text):
        assert (repository / path).is_file()


def test_its_workflows_cannot_write_but_to_pages(repository):
    for name in ("review", "site"):
        text = (repository / f".github/workflows/{name}.yml").read_text()
        flow = yaml.safe_load(text)
        assert flow["permissions"] == {"contents": "read"}
        extra = [job["permissions"] for job in flow["jobs"].values() if "permissions" in job]
        assert extra == ([{"pages": "write", "id-token": "write"}] if name == "site" else [])
        assert "${{" not in text
        assert "pull_request_target" not in text
        steps = [step for job in flow["jobs"].values() for step in job["steps"]]
        assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)
        assert all(
            step["with"] == {"persist-credentials": False} for step in steps if "checkout" in step.get("uses", "")
        )


@pytest.mark.parametrize(
    ("names", "refused", "status"), [([], "", 0), (["a b.zip", "c;d.zip"], "-", 0), (["a.zip", "b.zip"], "a", 1)]
)
def test_every_bundle_is_reviewed_and_one_refused_fails(names, refused, status, repository):
    (repository / "contributions").mkdir()
    for name in names:
        (repository / "contributions" / name).touch()
    flow = yaml.safe_load((repository / ".github/workflows/review.yml").read_text())
    script = flow["jobs"]["review"]["steps"][-1]["run"]
    stub = f'zoobench() {{ echo "$#:$2" >> seen; [ "$2" != contributions/{refused}.zip ]; }}\n'
    done = subprocess.run(["bash", "-e", "-c", stub + script], cwd=repository)
    assert done.returncode == status
    seen = (repository / "seen").read_text().splitlines() if names else []
    assert seen == [f"5:contributions/{name}" for name in names]


@pytest.mark.parametrize(
    ("name", "why"),
    [("quick", "is a suite that ships"), ("../x", "cannot be a suite's name"), ("mine", "is in the way")],
)
def test_what_is_refused(name, why, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert why in call("new", name, "--board", status=2).stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
