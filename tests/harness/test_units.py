"""Numbers as people write them: what they mean, what is refused in which words, and how they are printed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.units import clock, human, parse_count, parse_duration, parse_fraction, parse_number, parse_quantity, short


@pytest.mark.parametrize(
    ("parse", "meanings"),
    [
        (parse_count, {"400k": 400_000, "400K": 400_000, "1M": 1_000_000, "2.5 M": 2_500_000, "1_000": 1000}),
        (parse_count, {"1e6": 1_000_000, 7: 7, 8.0: 8}),
        (parse_quantity, {"2T": 2e12, "1.5P": 1.5e15, "3G": 3e9, "3B": 3e9}),
        (parse_fraction, {"5%": 0.05, "100 %": 1.0, 0.05: 0.05, 0: 0.0}),
        (parse_duration, {"90s": 90.0, "10m": 600.0, "10min": 600.0, "1h": 3600.0, 2.5: 2.5}),
        (parse_number, {"1e-3": 0.001, "3E-4": 0.0003, ".5": 0.5, 0: 0.0}),
    ],
)
def test_what_is_written_is_what_is_meant(parse, meanings):
    for text, value in meanings.items():
        assert parse(text) == pytest.approx(value, rel=1e-12)
        assert type(parse(text)) is (int if parse is parse_count else float)


@pytest.mark.parametrize(
    ("parse", "values", "message"),
    [
        (parse_count, ["many", "", True, None, [1]], "{} is not a number; write it like 400k or 1M"),
        (parse_count, ["400q"], "unknown unit 'q' in {}; known units: k, K, M, G, B, T, P (for example 400k or 1M)"),
        (parse_count, ["400m"], "unknown unit 'm' in {}"),
        (parse_count, ["5%"], "unknown unit '%' in {}"),
        (parse_count, [0, "-400k", math.inf, math.nan, "1e999"], "must be positive, got {}"),
        (parse_count, [1.5, "0.4096k"], "must be a whole number, got {}"),
        (parse_quantity, ["-1"], "must be positive, got {}"),
        (parse_quantity, ["2X"], "unknown unit 'X' in {}; known units: k, K, M, G, B, T, P (for example 1e-3 or 2T)"),
        (parse_fraction, ["101%", -0.1, math.nan], "must be between 0% and 100%, got {}"),
        (parse_fraction, ["5k"], "unknown unit 'k' in {}; known units: % "),
        (parse_duration, ["3d"], "unknown unit 'd' in {}; known units: s, m, min, h"),
        (parse_duration, [0], "must be positive, got {}"),
        (parse_number, [-1, math.inf, math.nan], "must be zero or more, got {}"),
        (parse_number, ["1k"], "unknown unit 'k' in {}"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(parse, values, message):
    for value in values:
        with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
            parse(value)
        assert str(raised.value).startswith(message.format(repr(value)))


@given(st.integers(1, 10**15))
def test_any_whole_number_stands_for_itself(number):
    assert parse_count(number) == parse_count(str(number)) == number


@given(st.floats(1e-6, 9e14, allow_nan=False))
def test_short_keeps_three_figures(number):
    text = short(number)
    assert parse_quantity(text) == pytest.approx(number, rel=0.0051)
    assert len(text) <= 9


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        (short, {401_234: "401k", 1e6: "1M", 999_700: "1M", 0: "0", 0.12345: "0.123", None: "–", 2.5e12: "2.5T"}),
        (lambda number: short(number, "B/s"), {2_500: "2.5kB/s"}),
        (lambda number: human(number, figures=3), {401_234: "401k"}),
        (lambda number: human(number, "FLOP"), {2.4e12: "2.4 TFLOP"}),
        (lambda number: human(number, "B"), {180e6: "180 MB", 12_288: "12 kB", 0: "0 B"}),
        (human, {999_999: "1M", None: "–"}),
        (clock, {0: "0s", 12.4: "12s", 59.4: "59s", 59.7: "1m00s", 60: "1m00s", 185: "3m05s", 119.7: "2m00s"}),
        (clock, {3599.9: "1h00m", 3720: "1h02m", 7199.9: "2h00m", 90_000: "25h00m"}),
    ],
)
def test_how_numbers_are_printed(written, texts):
    assert {number: written(number) for number in texts} == texts
