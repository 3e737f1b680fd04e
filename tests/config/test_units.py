import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdn.config.problems import BadValue
from cdn.config.units import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        (1000, 1000),
        ("1KiB", 1024),
        ("256MiB", 256 * 2**20),
        ("10GiB", 10 * 2**30),
        ("2TiB", 2**41),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        ("12MB", "write 12MiB"),
        ("12 GiB", "write 12GiB"),
        ("3g", "write 3GiB"),
        ("1.5GiB", "write a whole number"),
        ("-1", "write a whole number"),
        ("", "write a whole number"),
        ("１MiB", "write a whole number"),
        (True, "write a whole number"),
        (1.5, "write a whole number"),
        (None, "write a whole number"),
        ("9" * 5000, "write a whole number"),
    ],
)
def test_what_is_not_a_size_says_what_to_write(value, mend):
    with pytest.raises(BadValue, match="is not a size") as caught:
        parse_size(value)
    assert caught.value.mend.startswith(mend)


@given(st.integers(0, 2**59))
def test_every_size_survives_formatting(size):
    assert parse_size(format_size(size)) == size


@given(st.integers(1, 1023), st.sampled_from(["KiB", "MiB", "GiB", "TiB"]))
def test_the_largest_exact_unit_is_written(number, unit):
    assert format_size(parse_size(f"{number}{unit}")) == f"{number}{unit}"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("0s", 0), ("30s", 30), ("5m", 300), ("1h", 3600), ("1d", 86_400)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@given(st.integers(0, 10**9))
def test_milliseconds_are_the_nearest_float(number):
    assert parse_duration(f"{number}ms") == number / 1000
    assert parse_duration(f"{number}s") == number


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        (30, "write e.g. 30s"),
        ("30", "write e.g. 30s"),
        ("1h30m", "write a whole number and ms"),
        ("0.5s", "write a whole number and ms"),
        ("-1s", "write a whole number and ms"),
        (True, "write a whole number and ms"),
        (None, "write a whole number and ms"),
    ],
)
def test_what_is_not_a_duration_says_what_to_write(value, mend):
    with pytest.raises(BadValue) as caught:
        parse_duration(value)
    assert caught.value.mend.startswith(mend)
