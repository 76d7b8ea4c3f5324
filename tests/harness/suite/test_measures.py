"""`reference` and `targets`: they name rows and tasks of the suite, and change no run."""

import pytest

from harness.errors import UserError
from harness.plan.expand import expand
from harness.suite.load import load

SUITE = """\
suite: split
architectures: [pre_ln, {pre_ln: {heads: 1}, as: single}]
tasks:
  - mqar: {length: 8, pairs: 2, vocab: 16}
budget: {stop: {tokens: 64}}
"""


def made(tmp_path, extra=""):
    path = tmp_path / "split.yaml"
    path.write_text(SUITE + extra)
    return load(str(path))


def test_they_change_no_run(tmp_path):
    plain = [spec.to_dict() for spec in expand(made(tmp_path))]
    loaded = made(tmp_path, "reference: single\ntargets: {mqar: 9e-1}\n")
    assert (loaded.suite.reference, loaded.suite.targets) == ("single", {"mqar": 0.9})
    assert [spec.to_dict() for spec in expand(loaded)] == plain


@pytest.mark.parametrize(
    ("extra", "fragments"),
    [
        ("reference: singel\n", [":6: ", "reference", "'singel'", "'single'?"]),
        ("targets: {mqra: 0.9}\n", [":6: ", "targets.mqra", "'mqra'", "'mqar'?"]),
        ("targets: {mqar: high}\n", [":6: ", "targets.mqar"]),
        ("targets: {mqar: .inf}\n", [":6: ", "targets.mqar"]),
    ],
)
def test_names_that_cannot_be(tmp_path, extra, fragments):
    with pytest.raises(UserError) as caught:
        made(tmp_path, extra)
    for fragment in fragments:
        assert fragment in str(caught.value)
