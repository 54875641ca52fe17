"""Requests and tokens in a sliding minute."""

from __future__ import annotations

import random

import pytest

from exoflow.llm.fair.limits import SlidingMinute
from exoflow.llm.fair.pace import Pace
from exoflow.testing import SkippedTime


def test_no_minute_sees_more_requests_or_tokens_than_may_be() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        requests, tokens = rng.randint(1, 20), rng.randint(100, 1000)
        window, now_s, taken = SlidingMinute(requests, tokens), 0.0, []
        for _ in range(300):
            asked = rng.randint(1, 100)
            wait_s = window.take(now_s, asked)
            if wait_s:
                assert window.take(now_s + wait_s / 2, asked) > 0, "it says when, not before"
                now_s += wait_s
            else:
                taken.append((now_s, asked))
                now_s += rng.choice([0.0, 0.125, 2.0])
        for begin_s, _ in taken:
            minute = [asked for at_s, asked in taken if begin_s <= at_s < begin_s + 60]
            assert len(minute) <= requests and sum(minute) <= tokens


def test_what_a_request_has_not_used_is_free_again_before_its_minute_is_over() -> None:
    window = SlidingMinute(None, 100)
    assert window.take(0.0, 80) == 0
    assert window.take(1.0, 80) == 59
    window.correct(80, 10)
    assert window.take(1.0, 80) == 0
    assert window.take(60.0, 30) == 1, "of the first only 10 are given back when its minute is over"
    assert window.take(61.0, 100) == 0


def test_a_correction_after_the_minute_changes_nothing() -> None:
    window = SlidingMinute(None, 100)
    window.take(0.0, 80)
    assert window.take(60.0, 70) == 0
    window.correct(80, 10)
    assert window.take(60.0, 31) == 60
    assert window.take(60.0, 30) == 0


def test_a_request_larger_than_the_whole_minute_goes_alone() -> None:
    window = SlidingMinute(None, 100)
    assert window.take(0.0, 500) == 0
    assert window.take(1.0, 1) == 59
    assert window.take(60.0, 1) == 0
    assert window.take(60.0, 500) == 60


def test_retry_after_holds_back_all() -> None:
    window = SlidingMinute(None, None)
    window.hold(10.0)
    window.hold(5.0)
    assert window.take(4.0, 1) == 6
    assert window.take(10.0, 1) == 0


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_a_limit_is_a_whole_number_from_one(wrong: float) -> None:
    with pytest.raises(ValueError, match="tpm="):
        SlidingMinute(None, wrong)  # type: ignore[arg-type]


def test_those_who_call_one_endpoint_share_its_minute(clock: SkippedTime) -> None:
    one, other = Pace.of("http://here", 2), Pace.of("http://here", 2)
    assert one is other and one is not Pace.of("http://there", 2)
    mine = Pace(rpm=2)
    assert mine.take(1) == mine.take(1) == 0
    assert mine.take(1) == 60
