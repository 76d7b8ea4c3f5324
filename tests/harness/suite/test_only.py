"""`only`: which rows play a task."""

import pytest

from harness.errors import UserError
from harness.plan.expand import expand
from harness.plan.trials import trials
from harness.suite.load import load

SUITE = """\
suite: split
architectures:
  - pre_ln: {{heads: 2}}
  - mlp_mixer
  - pre_ln: {{heads: 1}}
    as: single
tasks:
  - mqar: {{length: 8, pairs: 2, vocab: 16}}
    only: {mqar}
  - pixels: {{patch: 4}}
    only: {pixels}
budget: {{stop: {{tokens: 64}}}}
seeds: [0, 1]
tuning: {{lr: [1e-3, 1e-2]}}
"""


def made(tmp_path, mqar, pixels):
    path = tmp_path / "split.yaml"
    path.write_text(SUITE.format(mqar=mqar, pixels=pixels))
    return load(str(path))


def test_each_task_is_played_by_its_own_rows(tmp_path):
    loaded = made(tmp_path, "[pre_ln, single]", "[mlp_mixer, single]")
    cells = [spec.cell[:2] for spec in expand(loaded)]
    rows = [("pre_ln", "mqar"), ("single", "mqar"), ("mlp_mixer", "pixels"), ("single", "pixels")]
    assert sorted(cells) == sorted(2 * rows)
    assert sorted(spec.cell[:2] for spec in trials(loaded)) == sorted(2 * rows)


@pytest.mark.parametrize(
    ("mqar", "pixels", "fragments"),
    [
        ("[pre_ln, singel]", "[mlp_mixer]", [":9: ", "tasks.0.only.1", "'singel'", "'single'?"]),
        ("[pre_ln]", "[mlp_mixer]", [":5: ", "architectures.2", "'single' plays no task"]),
        ("[]", "[mlp_mixer]", [":9: ", "tasks.0.only", "at least 1"]),
        ("pre_ln", "[mlp_mixer]", [":9: ", "tasks.0.only", "list"]),
    ],
)
def test_names_that_cannot_be(tmp_path, mqar, pixels, fragments):
    with pytest.raises(UserError) as caught:
        made(tmp_path, mqar, pixels)
    for fragment in fragments:
        assert fragment in str(caught.value)
