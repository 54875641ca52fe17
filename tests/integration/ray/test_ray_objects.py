"""Ray's own objects in results: passed on as they are, saved with the value, made again where their cluster is gone."""

import os
import signal
import threading

import pytest
import ray
import ray.data

import exoflow
from exoflow import flow, task
from exoflow.codec import ray_objects
from exoflow.errors import CodecError

pytestmark = pytest.mark.usefixtures("ray_cluster")


@ray.remote(num_cpus=0)
class Locked:
    def __init__(self):
        self.lock = threading.Lock()


@ray.remote(num_cpus=0)
class Busy:
    def work(self):
        threading.Event().wait()


@ray.remote(max_retries=0)
def fails():
    raise ZeroDivisionError("of its own")


@ray.remote(num_cpus=0)
class Counter:
    def __init__(self, start):
        self.count = start

    def add(self, number):
        self.count += number
        return self.count


@task
def refers(text):
    return {"in": [ray.put([ray.put(text)])]}


@task
def follows(found):
    return ray.get(ray.get(found["in"][0])[0])


@task
def tables(size):
    return ray.data.range(size).materialize()


@task
def counts(data):
    return data.count(), data.sum("id")


@task
def begins(start):
    counter = Counter.remote(start)
    assert ray.get(counter.add.remote(1)) == start + 1
    return [counter]


@task
def adds(counters, number):
    return ray.get(counters[0].add.remote(number))


def test_they_are_passed_on_as_they_are(tmp_path):
    @flow(executor="ray")
    def trial():
        return follows(refers.submit("x")), adds(begins.submit(5), 10)

    assert trial.options(store=tmp_path).run() == ("x", 16)


def test_the_body_may_look_at_them(tmp_path):
    @flow(executor="ray")
    def trial():
        found, counters = refers("x"), begins(5)
        return follows.function(found), follows(found), ray.get(counters[0].add.remote(1)), adds(counters, 1)

    assert trial.options(store=tmp_path).run() == ("x", "x", 7, 8)


@pytest.mark.slow
@pytest.mark.big
def test_where_their_cluster_is_gone_they_are_made_again_of_what_was_saved(tmp_path):
    lives = []
    entered = tmp_path / "entered"

    @task(checkpoint="sync")
    def makes():
        with open(entered, "a") as file:
            file.write("x")
        return [refers.function("x"), tables.function(10), begins.function(5)]

    @task
    def takes(made):
        found, data, counters = made
        return follows.function(found), counts.function(data), adds.function(counters, 10)

    @flow(executor="ray")
    def trial():
        made = makes.submit()
        first = takes(made)
        lives.append(first)
        if len(lives) == 1:
            raise LookupError("the first life ends here")
        return takes(made)

    with pytest.raises(LookupError):
        trial.options(store=tmp_path / "store", run_id="r").run()
    settings = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False, "log_to_driver": False}
    ray.shutdown()
    ray.init(**settings)
    assert exoflow.resume("r", store=tmp_path / "store") == ("x", (10, 45), 16)
    assert entered.read_text() == "x"


def test_one_that_is_lost_is_made_again_with_the_call_that_made_it(tmp_path):
    entered = tmp_path / "entered"

    @task(checkpoint="never")
    def makes(text):
        with open(entered, "a") as file:
            file.write(f"{os.getpid()}\n")
        return [ray.put(text)]

    @task
    def reads(found):
        return ray.get(found[0])

    @flow(executor="ray")
    def trial():
        found = makes.submit("x")
        assert reads(found) == "x"
        if len(entered.read_text().split()) == 1:
            os.kill(int(entered.read_text()), signal.SIGKILL)  # who has put it, owns it
        return reads(found)

    assert trial.options(store=tmp_path / "store").run() == "x"
    assert 1 <= len(entered.read_text().split()) <= 2


def test_one_of_the_flows_own_making_is_refused(tmp_path):
    @flow(executor="ray")
    def trial():
        return follows({"in": [ray.put("x")]})

    with pytest.raises(CodecError, match=r"ray\.ObjectRef that no task of this run has returned"):
        trial.options(store=tmp_path).run()


def test_an_actor_whose_state_cannot_be_pickled_is_refused_and_named(tmp_path):
    @task
    def makes():
        return [Locked.remote()]

    @flow(executor="ray")
    def trial():
        return makes()

    message = r"^the state of Actor\(Locked, \w+\), .* cannot pickle '_thread.lock' object\): give its class"
    with pytest.raises(CodecError, match=message):
        trial.options(store=tmp_path).run()


def test_one_that_stands_for_an_error_is_refused_and_not_made_again(tmp_path):
    entered = tmp_path / "entered"

    @task
    def makes():
        with open(entered, "a") as file:
            file.write("x")
        return [fails.remote()]

    @flow(executor="ray")
    def trial():
        return len(makes())

    with pytest.raises(CodecError, match=r"makes\S+ cannot be saved: .* an error, .*ZeroDivisionError: of its own"):
        trial.options(store=tmp_path / "store").run()
    assert entered.read_text() == "x"


def test_an_actor_that_is_busy_is_named_while_it_is_waited_for_and_refused_in_the_end(monkeypatch, caplog):
    monkeypatch.setattr(ray_objects, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(ray_objects, "_REFUSAL_S", 0.1)
    busy = Busy.remote()
    busy.work.remote()
    with pytest.raises(CodecError, match=r"^Actor\(Busy, \w+\), .* has not told its state"):
        ray_objects.load(busy)
    assert "Actor(Busy" in caplog.text
    assert "is waited for" in caplog.text
