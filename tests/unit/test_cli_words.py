"""Numbers and times as people read them."""

import pytest

from exoflow.cli.words import count, duration, listed, size, times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (0.000012, "12 µs"),
        (0.0004, "0.4 ms"),
        (0.0094, "9.4 ms"),
        (0.012, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (184, "3 min 4 s"),
        (3599.6, "1 h"),
        (7500, "2 h 5 min"),
        (86400 * 3 + 3600, "3 d 1 h"),
    ],
)
def test_a_duration_has_three_digits_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9940, "9.9 kB"),
        (9960, "10 kB"),
        (999_600, "1.0 MB"),
        (35e6, "35 MB"),
        (2.5e15, "2500 TB"),
    ],
)
def test_a_size_is_in_powers_of_ten(bytes_: int, text: str) -> None:
    assert size(int(bytes_)) == text


def test_a_list_ends_with_and() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and d"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_nouns_agree_with_their_numbers() -> None:
    assert [count(1, "call"), count(2000, "call"), count(2, "process")] == ["1 call", "2,000 calls", "2 processes"]
    assert [times(n) for n in (1, 2, 3)] == ["once", "twice", "3 times"]
