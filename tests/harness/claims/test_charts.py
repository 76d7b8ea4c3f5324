"""The picture of a claim: every mean where it belongs, what diverged named, and none where scales differ."""

import re
from collections import Counter

import pytest
import vl_convert

from harness.board.looks import Frame
from harness.claims.charts import heat_map
from harness.claims.quantities import Column, Measured

FRAME = Frame({}, 600)


def measured(columns, **more):
    """Rows `a` and `b`, of which `b` scores 1 more; each condition scores 10 more than that before it."""
    scores = {column: {"a": [10.0 * i, 10.0 * i + 0.5], "b": [10.0 * i + 1] * 2} for i, column in enumerate(columns)}
    tables = [*dict.fromkeys((column.task, column.track) for column in columns)]
    return Measured(scores=scores, tables=tables, **more)


def text(chart):
    """What stands in the chart, and where."""
    found = re.findall(
        r'<text[^>]*transform="translate\(([-\d.]+),([-\d.]+)\)[^>]*>([^<]+)<',
        vl_convert.vegalite_to_svg(chart.to_dict()),
    )
    return {words: (float(x), float(y)) for x, y, words in found}


def bits(task, track="", metric="bits_per_byte", primary=True):
    return Column(task, track, metric, primary, higher=False)


def test_every_mean_stands_under_its_condition_beside_its_row():
    at = text(heat_map(measured([bits("one"), bits("two")]), FRAME))
    assert {"bits_per_byte", "a", "b", "one", "two", "0.25", "1", "10.2", "11"} == {*at}
    assert at["0.25"][0] == at["1"][0] < at["10.2"][0] == at["11"][0]
    assert at["0.25"][1] == at["10.2"][1] < at["1"][1] == at["11"][1]


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ([bits("x", "small"), bits("x", "large")], ["small", "large"]),
        ([bits("x", "s"), bits("x", "l"), bits("y", "s"), bits("y", "l")], ["x · s", "x · l", "y · s", "y · l"]),
        ([bits("x", metric="bits_per_byte@4x"), bits("x", primary=False), bits("x", metric="loss", primary=False)],
         ["bits_per_byte", "bits_per_byte@4x"]),
    ],
    ids=["tracks", "tasks and tracks", "lengths"],
)  # fmt: skip
def test_a_condition_is_called_by_what_differs(columns, names):
    at = text(heat_map(measured(columns), FRAME))
    assert sorted(at.keys() & {*names}, key=lambda name: at[name][0]) == names


def test_what_diverged_says_so():
    at = text(heat_map(measured([bits("one"), bits("two")], diverged=Counter({("two", "", "b"): 2})), FRAME))
    assert "11" not in at
    assert at["diverged 2/2"][1] == at["1"][1]


@pytest.mark.parametrize(
    "columns",
    [[], [bits("one")], [bits("one"), Column("two", "", "accuracy", primary=True)]],
    ids=["nothing", "one condition", "two metrics"],
)
def test_no_picture_without_a_comparison_on_one_scale(columns):
    assert heat_map(measured(columns), FRAME) is None
