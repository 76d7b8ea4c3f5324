"""How many runs there are: what `validate` and `plan` say is what trains."""

import json

from click.testing import CliRunner

from harness.commands import main

PLAYERS = {"architectures": ["pre_ln", "mlp_mixer"], "seeds": [0, 1], "model": {"depth": 1, "width": 8, "heads": 1}}


def said(*arguments):
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_validate_and_plan_count_the_runs_that_train(suite):
    """A row that cannot be is counted apart; `mlp_mixer` is no language model."""
    path = suite(**PLAYERS, tuning={"lr": [1e-3, 1e-2, 1e-1]})
    told = "2 runs and 3 trials, 2 more are unsupported"
    assert said("validate", path) == f"tiny is valid: {told}\n"
    assert told in said("plan", path)
    counts = json.loads(said("validate", path, "--json"))
    assert (counts["runs"], counts["trials"], counts["unsupported"]) == (2, 3, 2)
    cells = [cell for cell in json.loads(said("plan", path, "--json")) if cell["size"]]
    assert (sum(cell["runs"] for cell in cells), sum(cell["trials"] for cell in cells)) == (2, 3)
    plain = suite(**PLAYERS)
    assert "2 runs and 0 trials, 2 more are unsupported" in said("validate", plain)
    assert "2 runs and 0 trials, 2 more are unsupported" in said("plan", plain)
