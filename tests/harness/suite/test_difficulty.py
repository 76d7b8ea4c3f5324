"""`difficulty` fills in what a suite leaves open, task by task, and gives a suite a name of its own."""

import pytest
import yaml

import tasks
from harness.errors import UserError
from harness.plan.expand import expand
from harness.records.meters import StopRule
from harness.suite.load import load, shipped

LEVELS = tasks.get("mqar").make.difficulties


def made(tmp_path, **changes):
    suite = {"suite": "own", "architectures": ["pre_ln"], "tasks": ["mqar"], "difficulty": "small", "seeds": [0, 1]}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in {**suite, **changes}.items() if value is not None}))
    return str(path)


def first(path, *overrides):
    return expand(load(path, overrides))[0]


def test_a_difficulty_gives_options_budget_size_and_training(tmp_path):
    spec, level = first(made(tmp_path)), LEVELS["small"]
    assert spec.task_options == level.options
    assert spec.stop.to_dict() == level.stop
    assert spec.match.target == level.params
    assert level.train.items() <= spec.train.to_dict().items()
    assert {k: v for k, v in spec.options.items() if k in level.model} == level.model


def test_what_the_suite_says_goes_before_it_and_the_entry_before_both(tmp_path):
    suite = {"budget": {"stop": {"steps": 7}}, "train": {"lr": 0.5}, "model": {"depth": 3}}
    spec = first(made(tmp_path, **suite))
    assert (spec.stop, spec.train.lr, spec.options["depth"]) == (StopRule("steps", 7), 0.5, 3)
    assert spec.match.target == LEVELS["small"].params
    entry = {"mqar": {"vocab": 64}, "stop": {"steps": 9}, "train": {"lr": 0.25}, "model": {"depth": 1}}
    spec = first(made(tmp_path, **suite, tasks=[entry]))
    assert (spec.stop, spec.train.lr, spec.options["depth"]) == (StopRule("steps", 9), 0.25, 1)
    assert spec.task_options == {**LEVELS["small"].options, "vocab": 64}
    assert first(made(tmp_path, budget={"match": "none"})).match is None


def test_another_difficulty_makes_another_suite(tmp_path):
    path = made(tmp_path, difficulties={"smoke": {"seeds": [5]}})
    assert load(path).suite.suite == "own"
    other = load(path, ("difficulty=smoke",))
    assert (other.suite.suite, other.suite.seeds) == ("own-smoke", [5])
    assert expand(other)[0].task_options == LEVELS["smoke"].options
    assert load(path, ("difficulty=smoke", "seeds=[6]")).suite.seeds == [6]
    assert load(path, ("seeds=[6]", "difficulty=smoke")).suite.seeds == [6]


def test_the_run_does_not_depend_on_the_name_of_the_difficulty(tmp_path):
    level, own = LEVELS["smoke"], first(made(tmp_path), "difficulty=smoke")
    spelled = {
        "tasks": [{"mqar": dict(level.options), "model": dict(level.model)}],
        "budget": {"stop": dict(level.stop), "match": {"params": level.params, "tolerance": 0.1}},
        "train": dict(level.train),
    }
    assert first(made(tmp_path, difficulty=None, **spelled)).run_id == own.run_id


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"difficulty": "smal"}, "mqar has no difficulty 'smal'; did you mean 'small'"),
        ({"difficulty": 3}, "must be text"),
        ({"difficulties": {"small": {"seedz": [1]}}}, "unknown key 'seedz'"),
    ],
)
def test_mistakes(tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        load(made(tmp_path, **changes))


def test_the_option_of_the_commands(tmp_path, call):
    said = call("validate", made(tmp_path), "--difficulty", "smoke").output
    assert said == "own-smoke is valid: 2 runs and 0 trials\n"


@pytest.mark.parametrize("name", shipped())
def test_every_difficulty_of_a_shipped_suite_is_sound(name):
    suite = load(name).suite
    for level in ("smoke", "small", "paper") if suite.difficulty else ():
        try:
            assert load(name, (f"difficulty={level}",)).suite.tasks
        except UserError as error:
            if level != "paper" or "zoobench fetch" not in str(error):
                raise
