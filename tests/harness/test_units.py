"""Numbers as people write them: what they mean, what is refused in which words, and how they are printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.units import (
    clock,
    parse_count,
    parse_duration,
    parse_fraction,
    parse_number,
    parse_quantity,
    short,
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_count, "400k", 400_000),
        (parse_count, "400K", 400_000),
        (parse_count, "1M", 1_000_000),
        (parse_count, "2.5 M", 2_500_000),
        (parse_count, "1_000", 1000),
        (parse_count, "1e6", 1_000_000),
        (parse_count, 7, 7),
        (parse_count, 7.0, 7),
        (parse_count, "0.4096k", None),
        (parse_quantity, "2T", 2e12),
        (parse_quantity, "1.5P", 1.5e15),
        (parse_quantity, "3G", 3e9),
        (parse_quantity, "3B", 3e9),
        (parse_fraction, "5%", 0.05),
        (parse_fraction, "100 %", 1.0),
        (parse_fraction, 0.05, 0.05),
        (parse_fraction, 0, 0.0),
        (parse_duration, "90s", 90.0),
        (parse_duration, "10m", 600.0),
        (parse_duration, "10min", 600.0),
        (parse_duration, "1h", 3600.0),
        (parse_duration, 2.5, 2.5),
        (parse_number, "1e-3", 0.001),
        (parse_number, "3E-4", 0.0003),
        (parse_number, ".5", 0.5),
        (parse_number, 0, 0.0),
    ],
)
def test_what_is_written_is_what_is_meant(parse, text, value):
    if value is None:
        with pytest.raises(ValueError, match="whole number"):
            parse(text)
    else:
        assert parse(text) == pytest.approx(value, rel=1e-12)
        assert type(parse(text)) is (int if parse is parse_count else float)


@pytest.mark.parametrize(
    ("parse", "value", "message"),
    [
        (parse_count, "many", "'many' is not a number; write it like 400k or 1M"),
        (parse_count, "", "'' is not a number"),
        (parse_count, True, "True is not a number"),
        (parse_count, None, "None is not a number"),
        (parse_count, [1], r"\[1\] is not a number"),
        (parse_count, "400q", "unknown unit 'q' in '400q'; known units: k, K, M, G, B, T, P"),
        (parse_count, "400m", "unknown unit 'm'"),
        (parse_count, "5%", "unknown unit '%'"),
        (parse_count, 0, "must be positive, got 0"),
        (parse_count, "-400k", "must be positive, got '-400k'"),
        (parse_count, 1.5, "must be a whole number, got 1.5"),
        (parse_count, float("inf"), "must be positive, got inf"),
        (parse_count, float("nan"), "must be positive, got nan"),
        (parse_count, "1e999", "must be positive"),
        (parse_quantity, "-1", "must be positive, got '-1'"),
        (parse_quantity, "2X", "unknown unit 'X' in '2X'.*1e-3 or 2T"),
        (parse_fraction, "101%", "must be between 0% and 100%, got '101%'"),
        (parse_fraction, -0.1, "must be between 0% and 100%, got -0.1"),
        (parse_fraction, "5k", "unknown unit 'k' in '5k'; known units: % "),
        (parse_fraction, float("nan"), "must be between"),
        (parse_duration, "3d", "unknown unit 'd' in '3d'; known units: s, m, min, h"),
        (parse_duration, 0, "must be positive, got 0"),
        (parse_number, -1, "must be zero or more, got -1"),
        (parse_number, float("inf"), "must be zero or more, got inf"),
        (parse_number, float("nan"), "must be zero or more, got nan"),
        (parse_number, "1k", "unknown unit 'k' in '1k'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(parse, value, message):
    with pytest.raises(ValueError, match=message) as raised:
        parse(value)
    assert "\n" not in str(raised.value)


@given(st.integers(1, 10**15))
def test_any_whole_number_stands_for_itself(number):
    assert parse_count(number) == parse_count(str(number)) == number


@given(st.floats(1e-6, 9e14, allow_nan=False))
def test_short_keeps_three_figures(number):
    text = short(number)
    assert parse_quantity(text) == pytest.approx(number, rel=0.0051)
    assert len(text) <= 9


@pytest.mark.parametrize(
    ("number", "text"),
    [(401_234, "401k"), (1e6, "1M"), (999_700, "1M"), (0, "0"), (0.12345, "0.123"), (None, "–"), (2.5e12, "2.5T")],
)
def test_short(number, text):
    assert short(number) == text


def test_short_with_a_unit():
    assert short(2_500, "B/s") == "2.5kB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (12.4, "12s"),
        (59.4, "59s"),
        (59.7, "1m00s"),
        (60, "1m00s"),
        (185, "3m05s"),
        (119.7, "2m00s"),
        (3599.9, "1h00m"),
        (3720, "1h02m"),
        (7199.9, "2h00m"),
        (90_000, "25h00m"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text
