"""Inputs that are given again under an old run id: compared by content, or it is said that they cannot be."""

import collections
import threading
import types
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import exoflow
from exoflow import Flow, RunMismatch, flow, task
from exoflow.errors import NondeterministicFlow, RunError, RunNotFound


@pytest.fixture(autouse=True)
def memory(request: pytest.FixtureRequest) -> None:
    exoflow.configure(store=f"memory://{request.node.name}")


class Model:
    """What cannot be compared."""

    def __init__(self, weight: float) -> None:
        self.weight = weight


@flow
def daily(data: object, rate: float = 1.0) -> str:
    return type(data).__name__


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [100, 200, 300]})),
        ([pd.DataFrame({"x": ["a"]})], [pd.DataFrame({"x": ["b"]})]),
        (pd.Series([1]), pd.Series([2])),
        (pd.Index([1]), pd.Index([2])),
        (pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02")),
        (pa.table({"x": [1]}), pa.table({"x": [2]})),
        (pa.array([1]), pa.array([2])),
        ({"deep": [np.ma.array([1], mask=[True])]}, {"deep": [np.ma.array([1], mask=[False])]}),
    ],
    ids=lambda value: f"{type(value).__module__}.{type(value).__name__}",
)
def test_other_data_under_an_old_id_is_refused(one: object, other: object) -> None:
    daily.options(run_id="it").run(one)
    with pytest.raises(RunMismatch, match="the run id 'it' is taken: the argument data"):
        daily.options(run_id="it").run(other)
    assert daily.options(run_id="it").run(one)


def test_the_message_names_the_place_in_a_large_input() -> None:
    config = {"paths": [f"/data/{n}" for n in range(500)], "model": {"rate": 0.1, "layers": [1, 2, 3]}}
    daily.options(run_id="it").run(config)
    changed = {**config, "model": {"rate": 0.1, "layers": [1, 2, 4]}}
    with pytest.raises(RunMismatch, match=r"the argument data\['model'\]\['layers'\]\[2\] was 3, and is 4 now"):
        daily.options(run_id="it").run(changed)


def test_an_input_that_cannot_be_compared_says_so_in_the_caller_s_line() -> None:
    daily.options(run_id="it").run([Model(1.0)], rate=2.0)
    with pytest.warns(RuntimeWarning, match="the run 'it' is known, and its input 'data' holds what cannot") as told:
        assert daily.options(run_id="it").run([Model(2.0)], rate=2.0) == "list"
    assert [each.filename for each in told] == [__file__]
    with pytest.warns(RuntimeWarning, match="its input 'data' holds") as told:
        daily.options(run_id="it").start([Model(2.0)], 2.0).result()
    assert [each.filename for each in told] == [__file__]
    with pytest.raises(RunMismatch, match=r"the argument rate was 2\.0, and is 3\.0 now"):
        daily.options(run_id="it").run([Model(1.0)], rate=3.0)


def test_an_input_whose_bytes_are_the_recorded_ones_is_the_same() -> None:
    daily.options(run_id="it").run([Model(1.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert daily.options(run_id="it").run([Model(1.0)]) == "list"


def test_a_live_run_is_joined_with_its_own_inputs_only() -> None:
    go, begun = threading.Event(), threading.Event()

    @flow
    def waits(n: int) -> int:
        begun.set()
        go.wait()
        return n

    run = waits.options(run_id="live").start(1)
    begun.wait()
    try:
        with pytest.raises(RunMismatch, match="the argument n was 1, and is 2 now"):
            waits.options(run_id="live").start(2)
        joined = waits.options(run_id="live").start(1)
    finally:
        go.set()
    assert run.result() == joined.result() == 1


def test_a_replay_with_another_frame_is_refused_and_names_the_column() -> None:
    rows = [1]

    @task(version="1")
    def total(data: pd.DataFrame) -> int:
        return int(data["x"].sum())

    @task(version="1")
    def fails(n: int) -> int:
        if rows == [1]:
            raise ValueError(n)
        return n

    @flow
    def f() -> int:
        return fails(total(pd.DataFrame({"x": rows})))

    with pytest.raises(ValueError, match="1"):
        f.options(run_id="it").run()
    rows[:] = [2]
    with pytest.raises(NondeterministicFlow, match="the argument data, the column 'x', was 1 × int64 with crc32"):
        f.resume("it")


def test_an_ordered_dict_has_an_order() -> None:
    daily.options(run_id="it").run(collections.OrderedDict(a=1, b=2))
    with pytest.raises(RunMismatch):
        daily.options(run_id="it").run(collections.OrderedDict(b=2, a=1))
    daily.options(run_id="plain").run({"a": 1, "b": 2})
    assert daily.options(run_id="plain").run({"b": 2, "a": 1}) == "dict"


# --- two tasks of one name


def module(name: str, url: str) -> types.ModuleType:
    """Has a task ``load`` whose code is that of every other one, and whose global is its own."""
    made = types.ModuleType(name)
    made.__dict__.update(URL=url, __name__=name)
    exec("from exoflow import task\n@task\ndef load(day): return f'{URL}/{day}'", made.__dict__)
    return made


def loading(which: types.ModuleType, *, fails: bool) -> Flow[[], str]:
    @task(version="1")
    def last(text: str) -> str:
        if fails:
            raise ValueError(text)
        return text

    @flow(name="loading")
    def f() -> str:
        return last(which.load(1))

    return f


def test_the_result_of_another_task_of_the_same_name_and_code_is_not_used() -> None:
    one, other = module("mod_a", "a.example"), module("mod_b", "b.example")
    with pytest.raises(ValueError, match=r"a\.example/1"):
        loading(one, fails=True).options(run_id="it").run()
    with pytest.raises(RunMismatch, match=r"load#0 was a call of mod_a\.load, and is one of mod_b\.load now"):
        loading(other, fails=False).resume("it")
    assert loading(one, fails=False).resume("it") == "a.example/1"


def test_a_task_whose_module_has_been_renamed_keeps_its_results() -> None:
    with pytest.raises(ValueError, match=r"a\.example/1"):
        loading(module("mod_before", "a.example"), fails=True).options(run_id="it").run()
    from exoflow.driver import identity

    kept = dict(identity._homes)  # a new process, where only the new name is known
    identity._homes.clear()
    try:
        assert loading(module("mod_after", "other.example"), fails=False).resume("it") == "a.example/1"
    finally:
        identity._homes.update(kept)


def test_only_a_call_that_was_recorded_can_be_accepted() -> None:
    one = module("mod_c", "c.example")
    with pytest.raises(ValueError, match=r"c\.example/1"):
        loading(one, fails=True).options(run_id="it").run()
    mended = loading(one, fails=False)
    with pytest.raises(RunError, match=r"no result of a call 'laod#0' that could be accepted; did you mean load#0\?"):
        exoflow.resume("it", accept=["laod#0"])
    assert exoflow.resume("it", accept=["load#0"]) == "c.example/1"
    with pytest.raises(RunError, match="no result of a call 'laod#0'"):
        exoflow.resume("it", accept=["laod#0"])
    with pytest.raises(RunNotFound):
        exoflow.resume("none", accept=["load#0"])
    assert mended.name == "loading"
