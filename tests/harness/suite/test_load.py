"""Wrong suites: each is answered by one line with file, line, key and nearest right name; nothing is written."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.commands import main
from harness.errors import UserError
from harness.records.meters import StopRule
from harness.suite.load import find_suite, load, shipped

SOUND = """\
suite: tiny
architectures:
  - pre_ln: {heads: 2, depth: 1}
  - lstm
tasks:
  - mqar: {length: 8, pairs: 2, vocab: 16}
budget:
  match: {params: 2k}
  stop:
    tokens: 64
seeds: [0, 1]
train: {batch_tokens: 32}
evaluate: {valid: 4, test: 4}
tuning: {lr: [1e-3]}
"""


ROWS = [row.split(" | ") for row in (Path(__file__).parent / "wrong.txt").read_text().splitlines()[1:]]
WRONG = {row[0]: [part.replace("\\n", "\n").replace("\\t", "\t") for part in row[1:]] for row in ROWS}
ALSO = ("unknown task", "a tab", "option pre_ln: {width: 30}")
"""Cases that are shown to commands other than `validate`, too: all load a suite by one function."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for suites, beside the empty one that commands run in."""
    suites, here = tmp_path / "suites", tmp_path / "here"
    suites.mkdir(), here.mkdir()
    (suites / "broken.py").write_text("1 / 0\n")
    (suites / "garbled.py").write_text("def (:\n")
    (suites / "thief.py").write_text("import zoo\n\n@zoo.register()\ndef lstm():\n    '''Mine.'''\n")
    monkeypatch.chdir(here)
    return suites


def answer(*arguments: str) -> str:
    """What a command that must refuse its input says: one line, status 2, nothing written."""
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, (result.exception, result.output)
    assert result.stdout == ""
    line = result.stderr.removesuffix("\n")
    assert "\n" not in line
    assert line.startswith("zoobench: ")
    assert "Traceback" not in line
    assert list(Path().iterdir()) == []
    return line.removeprefix("zoobench: ")


def write(folder, text):
    path = folder / "suite.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("command", "case"),
    [*(("validate", case) for case in WRONG), *((command, case) for command in ("run", "plan") for case in ALSO)],
)
def test_a_wrong_suite_is_answered_in_one_line(case, command, folder):
    old, new, line, *fragments = WRONG[case]
    assert SOUND.count(old) == 1, "the case must change one place"
    path = write(folder, SOUND.replace(old, new))
    said = answer(command, str(path), "--trust")
    assert said.startswith(f"{path}:{line}: "), said
    for fragment in fragments:
        assert fragment in said


def test_what_is_tuned_is_given_by_nobody(folder):
    tuned = SOUND.replace("tuning: {lr: [1e-3]}", "tuning: {dropout: [0, 0.1]}")
    for old, new, where in (
        ("heads: 2", "dropout: 0.1", "3: architectures.0.pre_ln.dropout"),
        ("seeds:", "model: {dropout: 0.1}\nseeds:", "11: model.dropout"),
        ("16}", "16}\n    model: {dropout: 0.1}", "7: tasks.0.model.dropout"),
    ):
        path = write(folder, tuned.replace(old, new))
        assert answer("validate", str(path)).startswith(f"{path}:{where}: dropout is also tuned; leave it out here")


def test_a_sampler_without_its_library_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    path = write(folder, SOUND.replace("lr: [1e-3]", "sampler: tpe, trials: 3, lr: {low: 1e-4, high: 1e-2}"))
    said = answer("validate", str(path))
    assert said == f"{path}:14: tuning.sampler: tpe needs Optuna: pip install 'zoobench[tuning]'"
    result = CliRunner().invoke(main, ["validate", str(write(folder, SOUND))])
    assert (result.exit_code, result.output) == (0, "tiny is valid: 4 runs and 2 trials\n"), "a grid needs none"


def test_a_plugin_that_fails_is_named(folder):
    code = "import zoo\n\n@zoo.register()\ndef mine():\n    '''Mine.'''\n    return 1 / 0\n"
    (folder / "mine.py").write_text(code)
    said = answer("validate", str(write(folder, SOUND.replace("- lstm", "- mine") + "plugins: [mine.py]\n")), "--trust")
    assert "suite.yaml:4: architectures.1: mine: ZeroDivisionError: division by zero" in said


def test_numbers_with_an_exponent_are_numbers(folder):
    path = write(folder, SOUND.replace("- lstm", "- h3: {dt_min: 1e-4, dt_max: +1.5E-1}"))
    first, second = load(path, ("architectures.0.pre_ln.dropout=1e-1",)).suite.architectures
    assert (first.options["dropout"], second.options) == (0.1, {"dt_min": 1e-4, "dt_max": 0.15})


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        ("quik", ["unknown suite 'quik'", "'quick'?"]),
        ("zzz", ["unknown suite 'zzz'", "quick"]),
        ("no/such.yaml", ["no such suite file: no/such.yaml"]),
        ("nosuch.yaml", ["no such suite file: nosuch.yaml"]),
        (".", ["unknown suite '.'", "a path to a YAML file"]),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan", "validate", "board", "status"])
def test_a_suite_that_is_not_there(name, fragments, command, folder):
    said = answer(command, name)
    assert all(fragment in said for fragment in fragments), said


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("seedz=[1]", ["--set", "seedz", "unknown key 'seedz'", "'seeds'?"]),
        ("budget.stop.tokns=3", ["--set", "budget.stop.tokns", "'tokens'?"]),
        ("budget.stop.tokens=many", ["--set", "budget.stop.tokens", "'many' is not a number"]),
        ("budget.stop.tokens=-1", ["--set", "must be positive, got -1"]),
        ("train.lr=[", ["--set", "train.lr", "is not YAML"]),
        ("train.lr", ["--set", "'train.lr' is not key=value"]),
        ("=3", ["--set", "is not key=value"]),
        ("suite.x=3", ["--set", "suite.x does not exist"]),
        ("architectures.9=lstm", ["--set", "architectures.9 does not exist"]),
        ("architectures.lstm.depth=2", ["--set", "architectures.lstm does not exist"]),
        ("architectures.0.pre_ln.heads=0", ["heads", "0"]),
        ("tasks.0.mqar.pairs=0", ["tasks.0.mqar", "pairs must be"]),
        ("seeds=[1, 1]", ["--set", "seeds repeat"]),
        ("architectures.²=gru", ["architectures.² does not exist"]),
        ("seeds.999999999=1", ["seeds.999999999 does not exist"]),
        (".".join(["a"] * 60) + "=1", ["no key lies 60 deep"]),
        ("train.lr=0x" + "F" * 99, ["--set", "too many digits"]),
        ("train.lr=!!timestamp x", ["is no timestamp"]),
        ("train.lr=1e400", ["must be zero or more"]),
        ("budget.stop.tokens=1e300", ["must be smaller"]),
        ("suite=\x1b[31m", ["--set"]),
        ("model.depth=1000000000000", ["depth must be at most 4,096"]),
        ("limits.runs=1", ["runs and trials, more than 1", "--set limits.runs="]),
    ],
)
def test_a_wrong_override(override, fragments, folder):
    said = answer("run", str(write(folder, SOUND)), "--set", override)
    assert all(fragment in said for fragment in fragments), said
    assert ":0:" not in said


def test_overrides_reach_keys_and_list_items(folder):
    """`budget.stop.steps=3` beside `tokens:` is two rules; `budget.stop={steps: 3}` says what is meant."""
    path = write(folder, SOUND)
    assert load(path, ("budget.stop={steps: 3}",)).suite.budget.stop.rule() == StopRule("steps", 3)
    with pytest.raises(UserError, match="exactly one of tokens"):
        load(path, ("budget.stop.steps=3",))
    loaded = load(path, ("budget.stop.tokens=1k", "train.lr=1e-2", "architectures.1=s4d", "seeds=[7]", "about=x"))
    assert loaded.suite.budget.stop.rule() == StopRule("tokens", 1000)
    assert loaded.suite.train.lr == 0.01
    assert [entry.name for entry in loaded.suite.architectures] == ["pre_ln", "s4d"]
    assert (loaded.suite.seeds, loaded.suite.about) == ([7], "x")


def test_suites_in_two_folders_that_extend_each_other(folder):
    for name, other in ("ab", "ba"):
        (folder / name).mkdir()
        (folder / name / "s.yaml").write_text(f"extends: ../{other}/s.yaml\n")
    for name in "ab":
        assert "circle" in answer("validate", str(folder / name / "s.yaml"))


def test_a_suite_on_top_of_another(folder):
    """Mappings merge but for stop rules, the rest is replaced, and a mistake is shown where it stands."""
    parent, child = write(folder, SOUND), folder / "child.yaml"
    child.write_text("extends: suite.yaml\nsuite: child\nseeds: [5]\ntrain: {lr: 1e-4}\nbudget: {stop: {steps: 3}}\n")
    suite = load(child).suite
    assert (suite.suite, suite.seeds, suite.train.lr, suite.train.batch_tokens) == ("child", [5], 1e-4, 32)
    assert [entry.name for entry in suite.architectures] == ["pre_ln", "lstm"]
    assert (suite.budget.stop.rule(), suite.budget.match.params) == (StopRule("steps", 3), 2000)
    write(folder, SOUND.replace("lr: [1e-3]", "lr: [0, 0]"))
    assert answer("validate", str(child)).startswith(f"{parent}:14: tuning.lr")


def test_entries_of_one_name_are_labelled_by_their_options(folder):
    text = SOUND.replace("- lstm", "- lstm\n  - lstm: {depth: 2}\n  - {lstm: {depth: 3}, as: deep}")
    labels = [entry.label for entry in load(write(folder, text)).suite.architectures]
    assert labels == ["pre_ln", "lstm", "lstm(depth=2)", "deep"]


def test_shipped_suites_are_sound_and_found_by_name():
    assert "quick" in shipped()
    for name, path in shipped().items():
        assert find_suite(name) == path
        assert load(name).suite.suite == name
