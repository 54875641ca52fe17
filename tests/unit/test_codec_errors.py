import asyncio
import traceback

import pytest

from exoflow.codec import decode_error, encode_error
from exoflow.errors import DidNotHappen, TaskFailed


class Own(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Unpicklable(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.generator = (x for x in ())


class Lying(Exception):
    def __reduce__(self):
        return Lying, ("something else",)


class Mute(Exception):
    def __str__(self):
        raise RuntimeError

    def __reduce__(self):
        raise RuntimeError


def raised(error):
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 -- what a body does is raised here
        return caught


def twin_of(error):
    return decode_error(encode_error(raised(error)))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no", 3),
        KeyError("k"),
        OSError(2, "gone", "/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        DidNotHappen("declined"),
        ExceptionGroup("several", [ValueError(1), KeyError(2)]),
        StopIteration(4),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_comes_back_as_itself(error):
    twin = twin_of(error)
    assert type(twin) is type(error)
    assert repr(twin.args) == repr(error.args)
    assert str(twin) == str(error)


def test_an_exception_with_an_init_of_its_own_does_too():
    twin = twin_of(Own(4, detail="late"))
    assert (type(twin), twin.args, twin.code, twin.detail) == (Own, ("4: late",), 4, "late")


def test_a_local_exception_class_is_still_caught_by_its_name():
    class Local(Exception):
        pass

    with pytest.raises(Local, match="here"):
        raise twin_of(Local("here"))


def test_the_traceback_goes_along_as_a_note():
    (note,) = twin_of(ValueError("no")).__notes__
    assert "in raised" in note
    assert note.endswith("ValueError: no")


def test_the_cause_is_in_the_note():
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        (note,) = decode_error(encode_error(error)).__notes__
    assert "KeyError: 'inner'" in note


def test_an_error_that_is_passed_on_keeps_its_first_traceback_and_its_own_notes():
    first = ValueError("no")
    first.add_note("by the user")
    twin = twin_of(twin_of(twin_of(first)))
    assert twin.__notes__[0] == "by the user"
    assert len(twin.__notes__) == 2
    assert "".join(traceback.format_exception(twin)).count("Where it was raised") == 1


def test_an_exception_whose_own_reduce_lies_is_taken_by_its_attributes():
    twin = twin_of(Lying("truth"))
    assert (type(twin), twin.args) == (Lying, ("truth",))


def test_what_does_not_survive_is_a_task_failed_with_all_that_is_known():
    error = Unpicklable("has one")
    twin = twin_of(error)
    assert type(twin) is TaskFailed
    assert str(twin) == f"{__name__}.{type(error).__qualname__}: {error}"
    assert "in raised" in twin.__notes__[0]


def test_an_exception_that_cannot_even_be_shown_is_a_task_failed():
    assert "its message cannot be shown" in str(twin_of(Mute()))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
def test_what_would_end_the_program_or_its_loop_is_a_task_failed(error):
    twin = twin_of(error)
    assert type(twin) is TaskFailed
    assert type(error).__name__ in str(twin)


def test_an_error_whose_class_is_gone_is_a_task_failed():
    data = encode_error(DidNotHappen("x")).replace(b"DidNotHappen", b"DidNotHapper")
    twin = decode_error(data)
    assert type(twin) is TaskFailed
    assert "does not load here" in str(twin)
