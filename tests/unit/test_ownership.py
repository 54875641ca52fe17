"""A result's bytes are fixed when it is returned, whoever still holds its memory; what nobody holds is not copied."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import exoflow
from exoflow import codec, flow, task
from exoflow.attempts import run_attempt
from exoflow.model import CallId, Inline, RunId, Value, Version
from exoflow.protocols import Attempt, Computed

ROWS = 50_000


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


held: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_held() -> None:
    held.clear()


def returned_by(function: Any, *args: Any) -> codec.Encoded:
    """What an executor is given to keep."""
    kept: list[codec.Encoded] = []

    def keep(made: Sequence[codec.Encoded | codec.Live], _: str | None) -> list[Value]:
        kept.extend(one for one in made if isinstance(one, codec.Encoded))
        return [Inline(b"") for _ in made]

    ids = RunId("r"), CallId("t#0"), Version(1)
    attempt = Attempt(*ids, 1, "k", "t", function, args, {}, {}, None, None, None, None)
    outcome = run_attempt(attempt, lambda value: codec.from_bytes(b""), keep)
    assert isinstance(outcome, Computed), outcome
    return kept[0]


def address(view: Any) -> int:
    found: int = np.frombuffer(view, "u1").__array_interface__["data"][0]
    return found


def test_an_array_that_nobody_else_holds_is_not_copied() -> None:
    addresses = []

    def make() -> Any:
        array = np.arange(ROWS, dtype=float)
        addresses.append(array.__array_interface__["data"][0])
        return array

    assert [address(view) for view in returned_by(make).buffers] == addresses


def test_a_frame_that_nobody_else_holds_is_not_copied() -> None:
    addresses = []

    def make() -> Any:
        frame = pd.DataFrame(np.random.default_rng(0).random((ROWS, 2)))
        addresses.append(frame.to_numpy().__array_interface__["data"][0])
        return frame

    assert [address(view) for view in returned_by(make).buffers] == addresses


@pytest.mark.parametrize("kind", ["array", "view", "frame", "list"])
def test_what_its_maker_changes_later_was_another_value(kind: str) -> None:
    array = np.zeros(ROWS)
    frame = pd.DataFrame({"x": array}, copy=False)

    @task
    def make() -> Any:
        held.append(array)
        return {"array": array, "view": array[10:], "frame": frame, "list": [array, 1]}[kind]

    @task
    def first(value: Any) -> float:
        value = value[0] if kind == "list" else value["x"].to_numpy() if kind == "frame" else value
        return float(value[20])

    @flow
    def twice() -> tuple[float, float]:
        ref = make.submit()
        before = first(ref)
        array[:] = 1.0
        if kind == "frame":
            frame.loc[:, "x"] = 1.0
        return before, first(ref)

    assert twice() == (0.0, 0.0)


def test_a_read_only_view_of_what_can_be_changed_is_copied_as_an_argument() -> None:
    array = np.zeros(ROWS)
    view = array.view()
    view.flags.writeable = False
    encoded = codec.encode_arguments((view,), {}, task="t", own=True)
    array[:] = 1.0
    assert codec.decode(encoded)[0][0][0] == 0.0


def test_a_column_of_a_frame_is_copied_as_an_argument() -> None:
    frame = pd.DataFrame({"x": np.zeros(ROWS)})
    encoded = codec.encode_arguments((frame["x"].to_numpy(),), {}, task="t", own=True)
    frame.loc[0, "x"] = 7.0
    assert codec.decode(encoded)[0][0][0] == 0.0


def test_what_was_decoded_and_what_arrow_holds_cannot_change_and_is_not_copied() -> None:
    encoded = codec.encode(np.arange(ROWS, dtype=float))
    value = codec.decode(encoded)
    again = codec.encode_arguments((value,), {}, task="t", own=True)
    assert address(again.buffers[0]) == value.__array_interface__["data"][0]
    table = pa.table({"x": np.arange(ROWS)})
    column = table["x"].chunk(0).buffers()[1]
    encoded = codec.encode_arguments((table,), {}, task="t", own=True)
    assert column.address in [address(view) for view in encoded.buffers]
