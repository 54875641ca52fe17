"""The engine in flows: what is recorded, what is shared, and what is refused."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from llm_zoo import Zoo, make_adapter, tiny_model

from exoflow import flow, gather, task
from exoflow.errors import AdapterError, LLMError, NondeterministicFlow
from exoflow.llm import Engine, EngineSpec, Output, SamplingParams
from exoflow.llm.durable.seats import seat_of
from exoflow.llm.engine.queues import Fcfs
from exoflow.llm.engine.request import WrongRequest
from exoflow.llm.fair import VTC

GREEDY = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
PROMPTS = [[index, 2, 3] for index in range(6)]
NAMES = ["r8", None, "r4-all"] * 2


class Counting(Fcfs):
    """Counts what an engine is asked, over all engines of the process."""

    asked = 0
    most_together = 0

    def add(self, request, now_s):
        type(self).asked += 1
        super().add(request, now_s)
        type(self).most_together = max(self.most_together, len(self))


class Beginning(Fcfs):
    """Tells when an engine begins with something."""

    begun = threading.Event()

    def pop(self, now_s):
        self.begun.set()
        return super().pop(now_s)


@pytest.fixture
def counting() -> type[Counting]:
    Counting.asked = Counting.most_together = 0
    return Counting


@pytest.fixture
def spec(zoo: Zoo, counting: type[Counting]) -> Iterator[EngineSpec]:
    folders = {name: zoo.folders[name] for name in ("r8", "r4-all")}
    described = EngineSpec(zoo.path, adapters=folders, queue=counting, pages=400, block=8)
    yield described
    described.close()


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def tokens(outputs: list[Output]) -> list[tuple[int, ...]]:
    return [output.token_ids for output in outputs]


def test_each_prompt_is_one_recorded_call_and_no_other_process_generates_it_again(
    spec: EngineSpec, counting: type[Counting], store: str
) -> None:
    @flow
    def tales() -> list[Output]:
        return spec.generate(PROMPTS, GREEDY, NAMES)

    first = tales.options(run_id="a", store=store).run()
    again = tales.options(run_id="a", store=store).run()
    assert again == first
    assert counting.asked == len(PROMPTS)
    assert [output.adapter.name if output.adapter else None for output in first] == NAMES


def test_a_flows_answers_are_those_of_the_engine(
    spec: EngineSpec, open_engine: Callable[..., Engine], store: str
) -> None:
    @flow
    def tales() -> list[Output]:
        return spec.generate(PROMPTS, GREEDY, NAMES)

    recorded = tales.options(store=store).run()
    assert tokens(recorded) == tokens(open_engine().generate(PROMPTS, GREEDY, NAMES))
    assert tokens(recorded) == tokens(spec.generate(PROMPTS, GREEDY, NAMES))  # outside of a flow: nothing is recorded


def test_calls_of_one_flow_are_in_the_engine_together(spec: EngineSpec, counting: type[Counting], store: str) -> None:
    @flow
    def tales() -> list[list[Output]]:
        refs = [spec.submit(prompt, SamplingParams(max_tokens=40, ignore_eos=True)) for prompt in PROMPTS * 8]
        return gather(refs).result()

    assert len(tales.options(store=store).run()) == 48
    assert counting.most_together > 1


async def test_in_an_async_flow_answers_are_awaited(spec: EngineSpec, store: str) -> None:
    @flow
    async def tales() -> list[list[Output]]:
        with pytest.raises(RuntimeError, match=r"await engine\.map"):
            spec.generate(PROMPTS)
        one = await spec.submit(PROMPTS[0], GREEDY, "r8")
        return [one, *await spec.map(PROMPTS[1:], GREEDY, NAMES[1:])]

    found = await tales.options(store=store).run()
    with pytest.raises(RuntimeError, match="to_thread"):
        spec.generate(PROMPTS)
    expected = await asyncio.to_thread(spec.generate, PROMPTS, GREEDY, NAMES)
    assert tokens([outputs[0] for outputs in found]) == tokens(expected)


def test_a_task_may_make_the_prompt_and_n_answers_come_from_one_call(spec: EngineSpec, store: str) -> None:
    @task
    def prompt(first: int) -> list[int]:
        return [first, 2, 3]

    @flow
    def tale() -> list[Output]:
        return spec.submit(prompt.submit(7).arg, SamplingParams(max_tokens=4, n=3, seed=1, logprobs=2)).result()

    found = tale.options(run_id="a", store=store).run()
    assert [output.index for output in found] == [0, 1, 2]
    assert len({output.token_ids for output in found}) > 1
    assert tale.options(run_id="a", store=store).run() == found


def test_each_of_many_refs_is_a_prompt_of_its_own(spec: EngineSpec, counting: type[Counting], store: str) -> None:
    @task
    def prompt(first: int) -> list[int]:
        return [first, 2, 3]

    @flow
    def tales() -> list[Output]:
        prompts = prompt.map(range(6))
        found = [output for outputs in spec.map(prompts, GREEDY, NAMES).result() for output in outputs]
        assert tokens(spec.generate(prompts[:2], GREEDY, NAMES[:2])) == tokens(found[:2])
        assert tokens(spec.generate([prompts[0]], GREEDY, NAMES[0])) == tokens(found[:1])
        return found

    @flow
    def none() -> list[Output]:
        return spec.generate(prompt.map([]), GREEDY)

    assert tokens(tales.options(store=store).run()) == tokens(spec.generate(PROMPTS, GREEDY, NAMES))
    assert counting.asked == 6 + 2 + 1 + 6
    assert none.options(store=store).run() == []


def test_a_running_engine_records_in_a_flow_too(open_engine: Callable[..., Engine], store: str) -> None:
    engine = open_engine()

    @flow
    def tales() -> list[Output]:
        with pytest.raises(RuntimeError, match="would not be recorded"):
            engine.submit([1, 2])
        return engine.generate(PROMPTS, GREEDY, NAMES)

    found = tales.options(run_id="a", store=store).run()
    steps = engine.stats().steps
    assert tales.options(run_id="a", store=store).run() == found
    assert engine.stats().steps == steps


def test_a_task_shares_the_engine_of_its_process(spec: EngineSpec, counting: type[Counting], store: str) -> None:
    @task
    def best(first: int) -> list[tuple[int, ...]]:
        return tokens(spec.generate([[first, 2, 3]], GREEDY, "r8"))

    @flow
    def tales() -> list[list[tuple[int, ...]]]:
        return best.map(range(3)).result()

    found = tales.options(store=store).run()
    assert [each[0] for each in found] == tokens(spec.generate([[n, 2, 3] for n in range(3)], GREEDY, "r8"))
    assert counting.asked == 6


def test_an_adapter_that_is_not_described_is_refused_and_never_answered_by_the_base(
    spec: EngineSpec, counting: type[Counting], store: str
) -> None:
    @flow
    def tales() -> list[Output]:
        return spec.generate(PROMPTS, GREEDY, "pirate")

    with pytest.raises(AdapterError, match=r"no adapter 'pirate': .* r4-all, r8"):
        tales.options(store=store).run()
    assert counting.asked == 0


def test_other_content_under_the_adapters_path_is_an_error_of_what_is_still_to_be_generated(
    zoo: Zoo, counting: type[Counting], store: str, tmp_path: Path
) -> None:
    place = tmp_path / "mine"
    shutil.copytree(zoo.folders["r8"], place)
    spec = EngineSpec(zoo.path, adapters={"mine": place}, queue=counting, pages=400, block=8)
    changes = [True]

    @flow
    def tales() -> list[Output]:
        first = spec.generate(PROMPTS[:3], GREEDY, "mine")
        if changes:  # somebody trains there, while the run goes on
            make_adapter(tiny_model(), place, seed=99)
            spec.close()  # an engine that has it loaded answers by the old content
        return first + spec.generate(PROMPTS[3:], GREEDY, "mine")

    with pytest.raises(AdapterError, match="Put the old content back"):
        tales.options(run_id="a", store=store).run()
    assert counting.asked >= 3
    changes.clear()
    shutil.copytree(zoo.folders["r8"], place, dirs_exist_ok=True)
    counting.asked = 0
    found = tales.options(store=store).resume("a")
    assert counting.asked == 3
    assert len({output.adapter for output in found}) == 1
    assert tokens(found) == tokens(spec.generate(PROMPTS, GREEDY, "mine"))
    spec.close()


def test_a_flow_may_go_on_with_an_adapter_that_it_has_trained(spec: EngineSpec, store: str, tmp_path: Path) -> None:
    @task
    def train(seed: int) -> str:
        make_adapter(tiny_model(), tmp_path / f"step-{seed}", seed=seed)
        return str(tmp_path / f"step-{seed}")

    @flow
    def improve() -> list[Output]:
        found = []
        for step in range(2):
            policy = spec.with_adapters({"policy": train(step + 50)})
            found += policy.generate(PROMPTS[:2], GREEDY, "policy")
        return found

    found = improve.options(store=store).run()
    assert {output.adapter.name for output in found if output.adapter} == {"policy"}
    assert len({output.adapter for output in found}) == 2


def test_another_prompt_at_a_replay_is_an_error_and_other_settings_are_none(
    spec: EngineSpec, zoo: Zoo, store: str
) -> None:
    prompts, engines = [[1, 2, 3]], [spec]

    @flow
    def tale(fails: bool) -> list[Output]:
        found = engines[0].generate(prompts, GREEDY)
        if breaks:
            raise ValueError("broken")
        return found

    breaks = [True]
    with pytest.raises(ValueError, match="broken"):
        tale.options(run_id="a", store=store).run(True)
    prompts[0] = [1, 2, 4]
    with pytest.raises(NondeterministicFlow):
        tale.options(store=store).resume("a")
    prompts[0] = [1, 2, 3]
    breaks.clear()
    engines[0] = EngineSpec(zoo.path, max_batch=8, pages=300, block=16)
    assert len(tale.options(store=store).resume("a")) == 1


def test_more_prompts_than_may_wait_are_taken_one_after_another(zoo: Zoo, store: str) -> None:
    spec = EngineSpec(zoo.path, pages=400, block=8, max_batch=2, max_waiting=3)

    @flow
    def tales() -> list[Output]:
        return spec.generate(PROMPTS * 4, SamplingParams(max_tokens=3, n=2))

    assert len(tales.options(store=store).run()) == 48
    spec.close()


def test_a_flow_waits_while_others_keep_its_engine_busy(open_engine: Callable[..., Engine], store: str) -> None:
    engine = open_engine(max_batch=1, max_waiting=2)
    long = SamplingParams(max_tokens=150, ignore_eos=True)
    running = engine.submit([1, 2, 3], long)
    next(iter(running))
    others = [running, *(engine.submit([index], long) for index in range(2))]

    @flow
    def tales() -> list[Output]:
        return engine.generate(PROMPTS, GREEDY)

    assert len(tales.options(store=store).run()) == len(PROMPTS)
    assert [len(other.outputs()[0].token_ids) for other in others] == [150] * 3


def test_more_answers_to_one_prompt_than_may_ever_wait_are_no_overload(
    open_engine: Callable[..., Engine], store: str
) -> None:
    engine = open_engine(max_waiting=4, max_batch=2)

    @flow
    def tales(n: int) -> list[Output]:
        return engine.generate(["x"], SamplingParams(max_tokens=2, n=n))

    with pytest.raises(WrongRequest, match=r"n=7 is more than .*: 6, max_batch"):
        tales.options(store=store).run(7)
    assert len(tales.options(store=store).run(6)) == 6


def test_an_engine_that_does_not_start_is_tried_again_by_the_next_run(store: str, zoo: Zoo, tmp_path: Path) -> None:
    spec = EngineSpec(tmp_path / "model", pages=400, block=8)

    @flow
    def tale() -> list[Output]:
        return spec.generate([[1, 2]], GREEDY)

    with pytest.raises(LLMError):
        tale.options(run_id="a", store=store).run()
    shutil.copytree(zoo.path, tmp_path / "model")
    assert len(tale.options(store=store).resume("a")) == 1
    spec.close()


@pytest.mark.parametrize("executor", ["local", "local:2"])  # the second: an engine that is asked as one elsewhere
def test_calls_of_an_engine_that_is_closed_under_them_fail(zoo: Zoo, store: str, executor: str) -> None:
    spec = EngineSpec(zoo.path, executor=executor, queue=Beginning, pages=400, block=8, max_batch=2)

    @flow
    def tales(count: int) -> list[Output]:
        return spec.generate(PROMPTS, SamplingParams(max_tokens=count, ignore_eos=True))

    Beginning.begun.clear()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(tales.options(run_id="r", store=store).run, 400)
        Beginning.begun.wait()
        spec.close()
        with pytest.raises(LLMError, match="closed"):
            running.result()
    assert len(tales.options(run_id="another", store=store).run(4)) == len(PROMPTS)
    spec.close()


def test_a_description_is_checked_at_once_and_can_be_pickled(zoo: Zoo) -> None:
    with pytest.raises(TypeError, match="max_batches"):
        EngineSpec(zoo.path, max_batches=3)
    with pytest.raises(ValueError, match="max_batch"):
        EngineSpec(zoo.path, max_batch=0)
    with pytest.raises(ValueError, match="num_gpus"):
        EngineSpec(zoo.path, resources={"num_gpus": -1})
    for executor in (None, "local"):
        with pytest.raises(ValueError, match="give its executor, too"):
            EngineSpec(zoo.path, executor=executor, resources={"num_gpus": 1})
    spec = EngineSpec(zoo.path, adapters={"r8": "r8"}, executor="ray", resources={"num_gpus": 1})
    copy = pickle.loads(pickle.dumps(spec))
    assert copy.how.setup == spec.how.setup
    assert copy.how.path("r8") == "r8"


def test_queues_that_are_made_alike_are_of_one_engine(zoo: Zoo) -> None:
    one, same, other = (
        EngineSpec(zoo.path, pages=400, block=8, queue=partial(VTC, weights={"ann": weight})) for weight in (2, 2, 3)
    )
    for spec in (same, pickle.loads(pickle.dumps(one))):
        assert spec.how.setup == one.how.setup
        assert hash(spec.how.setup) == hash(one.how.setup)
    assert other.how.setup != one.how.setup
    assert asyncio.run(seat_of(one.how.setup)) is asyncio.run(seat_of(same.how.setup))
    one.close()
