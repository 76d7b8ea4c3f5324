"""How lm_eval's `generation_kwargs` are read. What is generated: test_adapter.py."""

from typing import Any

import pytest

from harness.errors import UserError

pytest.importorskip("lm_eval")
from harness.lm_eval.generation import GenerationOptions


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, (0.0, None, None)),
        ({"temperature": 0.7}, (0.7, None, None)),
        ({"do_sample": True}, (1.0, None, None)),
        ({"do_sample": True, "temperature": 0.5, "top_k": 3, "top_p": 0.9}, (0.5, 3, 0.9)),
        ({"do_sample": False, "temperature": 0.5}, (0.0, None, None)),
        ({"top_k": 0, "top_p": 1}, (0.0, None, None)),
    ],
)
def test_how_a_task_wants_its_tokens(options: dict[str, Any], wanted: tuple[Any, ...]) -> None:
    found = GenerationOptions.parse(options, 512)
    assert (found.temperature, found.top_k, found.top_p) == wanted
    assert (found.tokens, found.until) == (256, ())


def test_unknown_options_are_refused() -> None:
    for options, said in (({"max_gen_tokens": 3}, "did you mean"), ({"num_beams": 4}, "beam")):
        with pytest.raises(UserError, match=said):
            GenerationOptions.parse(options, 512)
