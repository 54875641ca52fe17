"""Odd ids, wrong stores, Refs in the wrong place: every refusal says what, with which values, and what to do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest

import exoflow
from exoflow import ExecutorError, Ref, RunMismatch, RunNotFound, UnsupportedStore, flow, task


@pytest.fixture(autouse=True)
def store(request: pytest.FixtureRequest) -> str:
    url = f"memory://{request.node.name}"
    exoflow.configure(store=url, executor="local")
    return url


@flow
def same(x: object) -> object:
    return x


@task
def one(x: Any) -> Any:
    return x


def in_a_flow(body: Callable[[], object]) -> object:
    return flow(name="body")(body).run()


ODD_IDS = [
    "a/b",
    "..",
    "../../etc/passwd",
    ".",
    "a b",
    " ",
    "-1",
    "'\"",
    "*?[]",
    "x" * 300,
    "日本/ü",
    "🦆",
    "CON",
    "a#0",
    "%2e",
]


@pytest.mark.parametrize("run_id", ODD_IDS)
def test_any_printable_text_can_be_a_run_id(run_id: str) -> None:
    assert same.options(run_id=run_id).run(1) == 1
    assert same.options(run_id=run_id).run(1) == 1
    assert exoflow.get(run_id).id == run_id
    assert exoflow.resume(run_id) == 1


@pytest.mark.parametrize("run_id", ["", "a\nb", "a\x00b", "\ud800", 3, b"a"])
def test_a_run_id_that_cannot_be_one_is_refused(run_id: Any) -> None:
    with pytest.raises(ValueError, match="must be printable text, and not empty"):
        same.options(run_id=run_id)


@pytest.mark.parametrize(
    "ask", [exoflow.resume, exoflow.get, exoflow.cancel, same.resume], ids=["resume", "get", "cancel", "of its flow"]
)
def test_an_unknown_id_is_told_with_the_nearest(ask: Callable[[str], object], store: str) -> None:
    same.options(run_id="monday").run(1)
    with pytest.raises(RunNotFound, match=rf"no run 'mondy' in {re.escape(store)}; did you mean 'monday'") as told:
        ask("mondy")
    assert told.value.run_id == "mondy"


def test_the_same_id_with_other_inputs_is_refused_with_the_difference() -> None:
    same.options(run_id="monday").run({"rows": [1, 2, 3]})
    with pytest.raises(RunMismatch, match=r"'monday' is taken: the argument x.*Choose another id") as told:
        same.options(run_id="monday").run({"rows": [1, 2, 4]})
    assert "4" in str(told.value)
    assert same.options(run_id="monday").run({"rows": [1, 2, 3]}) == {"rows": [1, 2, 3]}


def test_the_id_of_another_flow_is_refused() -> None:
    same.options(run_id="monday").run(1)
    with pytest.raises(RunMismatch, match=r"it is a run of .*same, not of other"):
        flow(name="other")(lambda x: x).options(run_id="monday").run(1)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://", "names no bucket: write s3://bucket"),
        ("gs://bucket", "conditional create has"),
        ("az://container", "conditional create has"),
        ("https://example.org", "nothing can be created there"),
        ("ftp://host/x", "ExoFlow does not know it"),
        ("file://host/x", "cannot name a host"),
    ],
)
def test_a_store_without_an_atomic_create_is_refused_with_what_to_use_instead(url: str, why: str) -> None:
    with pytest.raises(UnsupportedStore, match=rf"{url}.*{why}"):
        same.options(store=url).run(1)


def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(TypeError, match="store=3 must be a path, a url, or a Store"):
        same.options(store=3).run(1)  # type: ignore[arg-type]  # that is the point


def test_other_processes_cannot_use_a_store_in_memory(store: str) -> None:
    with pytest.raises(
        ExecutorError, match=rf"'processes' has other processes, and the store {re.escape(store)} is this one's"
    ):
        same.options(executor="processes").run(1)
    with pytest.raises(ExecutorError, match="use a path as the store, or executor='local'"):
        in_a_flow(lambda: one.options(executor="processes")(1))


def test_an_unknown_executor_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ExecutorError, match="no executor 'cluster': write 'local'"):
        same.options(executor="cluster").run(1)


@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        ({"day": 1}, TypeError, "labels must be text: 'day': 1 is not"),
        ({"day": "\ud800"}, ValueError, "half of a character"),
        ([("day", "1")], TypeError, "must be a mapping of text to text"),
    ],
)
def test_labels_that_are_no_text_are_refused(labels: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        same.options(labels=labels)


def test_a_key_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(ValueError, match="half of a character"):
        one.options(key="\ud800")


def test_a_ref_in_a_set_or_an_object_is_refused_where_it_is_passed() -> None:
    class Holder:
        def __init__(self, ref: Ref[int]) -> None:
            self.ref = ref

    for hide in (Holder, lambda ref: {ref}, lambda ref: {ref: 1}, lambda ref: [lambda: ref]):
        with pytest.raises(exoflow.CodecError, match=r"the Ref to one#0 in a set or in an object.*pass its value"):
            in_a_flow(lambda hide=hide: one(hide(one.submit(1))))


def test_a_ref_in_a_set_or_an_object_is_refused_where_a_run_returns_it() -> None:
    told = r"the result of body holds the Ref to one#\d in a set or in an object.*Return it there, or its value"
    with pytest.raises(exoflow.CodecError, match=told):
        in_a_flow(lambda: {one.submit(1)})
    with pytest.raises(exoflow.CodecError, match=told):
        in_a_flow(lambda: [one.submit(1), {one.submit(1)}])
    assert {exoflow.get(run.id).status for run in exoflow.runs()} == {exoflow.Status.FAILED}


def test_a_ref_of_another_run_is_refused() -> None:
    kept: list[Ref[int]] = []
    in_a_flow(lambda: kept.append(one.submit(1)))
    with pytest.raises(RuntimeError, match=r"<Ref to one#0> belongs to the run body-.* means nothing in body-"):
        in_a_flow(lambda: one(kept[0]))
    with pytest.raises(RuntimeError, match="belongs to another run"):
        in_a_flow(lambda: [kept[0].result()])
    with pytest.raises(TypeError, match=r"means nothing outside its flow: give .*same the value"):
        same.run(kept[0])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: one(1, 2), TypeError, r"one\(x.*\).*: too many positional arguments"),
        (lambda: [one()], TypeError, r"missing a required argument: 'x'"),
        (lambda: one(1, x=2), TypeError, "multiple values for argument 'x'"),
        (lambda: one.map([1], [2, 3]), ValueError, "equal lengths: these have 1 and 2 elements"),
        (lambda: one.map(3), TypeError, "one call for each element, and 3 has none"),
        (lambda: one.map(itertools.repeat(1)), ValueError, "map needs an iterable that ends"),
        (lambda: one.map(one.submit([1])), TypeError, "cannot be iterated over: write for x in `ref.result"),
        (lambda: exoflow.sleep("soon"), ValueError, r"timer\('soon'\): seconds must be a number"),
        (lambda: same.options(run_id="x")(1), RuntimeError, "is for a run, and a child flow is part of its parent's"),
    ],
    ids=range(9),
)
def test_a_wrong_call_in_a_flow_says_what_to_write(
    call: Callable[[], object], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        in_a_flow(call)


def test_a_wrong_call_is_refused_before_anything_runs() -> None:
    entered = []

    @task(retries=3)
    def counted(x: int) -> None:
        entered.append(x)

    with pytest.raises(TypeError):
        in_a_flow(lambda: counted.map([1, 2], y=3))  # type: ignore[call-arg]  # that is the point
    assert entered == []
