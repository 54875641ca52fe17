"""The garbage collector is as it was when the last long history has been read, however many are read at once."""

import gc
import threading
from collections.abc import Iterator

import pytest

from exoflow.journal.collector import MANY, at_rest


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_it_rests_while_many_records_are_read_and_not_for_few() -> None:
    with at_rest(MANY):
        assert not gc.isenabled()
    assert gc.isenabled()
    with at_rest(MANY - 1):
        assert gc.isenabled()


def test_one_that_was_off_stays_off() -> None:
    gc.disable()
    with at_rest(MANY):
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_an_error_wakes_it() -> None:
    with pytest.raises(KeyError), at_rest(MANY):
        raise KeyError
    assert gc.isenabled()


def test_the_last_of_several_readers_wakes_it() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def read() -> None:
        with at_rest(MANY):
            inside.set()
            assert go_on.wait(10)

    reader = threading.Thread(target=read)
    with at_rest(MANY):
        reader.start()
        assert inside.wait(10)
    assert not gc.isenabled()
    go_on.set()
    reader.join()
    assert gc.isenabled()
