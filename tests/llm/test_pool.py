"""The engine where memory is short, where requests are wrong, and where it has to end."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from llm_zoo import ADAPTERS, Zoo
from safetensors.torch import load_file, save_file

from exoflow.errors import AdapterError, ContextTooLong, LLMError, OutOfPages
from exoflow.llm import Engine, SamplingParams
from exoflow.llm.bench.adapters import make_adapters
from exoflow.llm.engine.generation import Generation

Opens = Callable[..., Engine]
GREEDY = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
LONG = SamplingParams(max_tokens=400, temperature=0, ignore_eos=True)
HELLO = [72, 101, 108, 108, 111]


def assert_empty(engine: Engine) -> None:
    """Nothing runs, and all pages are free or kept for later, once the adapters that are being copied have come."""
    until_s = time.monotonic() + 30
    while (stats := engine.stats()).free_pages + stats.reclaimable_pages < stats.pages and time.monotonic() < until_s:
        time.sleep(0.01)
    assert not stats.running
    assert not stats.waiting
    assert not stats.loading
    assert stats.free_pages + stats.reclaimable_pages == stats.pages


def began(generation: Generation) -> Generation:
    """Once its first token has come."""
    next(iter(generation))
    return generation


def load_and_remove(engine: Engine, folder: Path) -> None:
    """An adapter, ``vanishing``, whose directory is gone when it is needed."""
    (made,) = make_adapters(folder, engine.model.decoder.geometry, 1).values()
    engine.load_adapter("vanishing", made)
    shutil.rmtree(made)


@pytest.mark.parametrize(
    ("prompt", "settings", "error", "match"),
    [
        ([], {}, LLMError, "empty"),
        ([1] * 600, {}, ContextTooLong, "512"),
        ([1] * 505, {}, ContextTooLong, "512"),
        ([1] * 300, {"pages": 30}, OutOfPages, "more pages"),
    ],
)
def test_what_can_never_fit_is_refused_and_the_engine_goes_on(
    prompt: list[int], settings: dict[str, int], error: type[LLMError], match: str, open_engine: Opens
) -> None:
    engine = open_engine(**settings)
    with pytest.raises(error, match=match):
        engine.generate([prompt], GREEDY)
    assert len(engine.generate([HELLO], GREEDY)[0].token_ids) == 8
    assert_empty(engine)


@pytest.mark.parametrize("settings", [{"pages": 10**11}, {"pages": 10**30}, {"pages": 3, "block": 10**12}])
def test_more_pages_than_there_is_memory_for_are_refused(zoo: Zoo, settings: dict[str, int]) -> None:
    with pytest.raises(LLMError, match=r"pages=\d+ and block=\d+ need more memory than can be had"):
        Engine(zoo.path, **settings)


def test_prompt_and_answer_may_fill_the_context_to_the_last_token(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine()
    one = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    prompt = [(7 * index) % 256 for index in range(511)]
    assert list(engine.generate([prompt], one, "r8")[0].token_ids) == zoo.greedy(prompt, "r8", 1)[0]
    (scored,) = engine.logits([[*prompt, 3]], "r8")
    assert scored.shape == (512, 300)
    with pytest.raises(ContextTooLong):
        engine.logits([[*prompt, 3, 4]], "r8")


def test_a_call_with_more_prompts_than_may_wait_is_answered(open_engine: Opens) -> None:
    engine = open_engine(max_waiting=8, max_batch=4)
    prompts = [[index, 2] for index in range(60)]
    assert len(engine.generate(prompts, GREEDY, "r8")) == 60
    assert len(engine.logits(prompts, "r8")) == 60
    assert_empty(engine)


def test_an_unknown_adapter_is_refused_before_anything_is_computed(open_engine: Opens) -> None:
    engine = open_engine()
    with pytest.raises(AdapterError, match="'nobody'"):
        engine.submit(HELLO, GREEDY, "nobody")
    with pytest.raises(AdapterError, match="'nobody'"):
        engine.generate([HELLO, HELLO], GREEDY, ["r8", "nobody"])
    with pytest.raises(AdapterError, match="'nobody'"):
        engine.logits([HELLO, HELLO], [None, "nobody"])
    assert engine.stats().steps == 0


def test_what_is_wrong_with_one_prompt_ends_the_others_of_the_call(open_engine: Opens) -> None:
    engine = open_engine()
    with pytest.raises(LLMError, match="empty"):
        engine.generate([HELLO, [], HELLO], LONG)
    with pytest.raises(LLMError, match="empty"):
        engine.logits([HELLO, []])
    assert_empty(engine)


def test_two_thousand_adapters_take_turns_in_a_small_pool(tmp_path: Path, open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine(pages=120, adapter_slots=24, max_batch=32)
    folders = make_adapters(tmp_path, engine.model.decoder.geometry, 2000, (1, 2), ("q_proj",))
    for name, folder in folders.items():
        engine.load_adapter(name, folder)
    one = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    names = list(folders)
    outputs = engine.generate([[65 + index % 50, 66] for index in range(2000)], one, names)
    assert [output.adapter and output.adapter.name for output in outputs] == names
    assert engine.stats().loads >= 2000
    again = names[::199] * 2
    for name, output in zip(again, engine.generate([HELLO] * len(again), GREEDY, again), strict=True):
        (alone,) = engine.generate([HELLO], GREEDY, name)
        assert output.token_ids == alone.token_ids
    assert_empty(engine)


def test_random_adapters_answer_as_peft_has_them(tmp_path: Path, open_engine: Opens, zoo: Zoo) -> None:
    import copy

    from peft import PeftModel

    engine = open_engine(pages=90, adapter_slots=3)
    folders = make_adapters(tmp_path, engine.model.decoder.geometry, 6, (1, 8, 3))
    for name, folder in folders.items():
        engine.load_adapter(name, folder)
    for (_, folder), found in zip(folders.items(), engine.logits([HELLO] * 6, list(folders)), strict=True):
        model = PeftModel.from_pretrained(copy.deepcopy(zoo.peft[None]), str(folder))  # type: ignore[arg-type]
        with torch.no_grad():
            assert (model(torch.tensor([HELLO])).logits[0] - found).abs().max() <= 1e-4


def test_a_pinned_adapter_stays_whatever_comes(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine(pages=80, adapter_slots=3)
    engine.load_adapter("r8", zoo.folders["r8"], pin=True)
    loads = engine.stats().loads
    for name in ["r1", "r4-all", "mlp", "ranks"] * 2:
        engine.generate([HELLO], GREEDY, name)
    before = engine.stats().loads
    assert before >= loads + 8 - 2
    engine.generate([HELLO], GREEDY, "r8")
    assert engine.stats().loads == before
    engine.unload_adapter("r8")
    assert_empty(engine)


def test_pins_leave_room_for_what_is_under_way_and_for_others(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine(pages=60, adapter_slots=2)
    running = began(engine.submit(HELLO, LONG))
    with pytest.raises(OutOfPages):
        engine.load_adapter("r33", zoo.folders["r33"], pin=True)
    engine.abort(running)
    engine.load_adapter("r1", zoo.folders["r1"], pin=True)
    engine.load_adapter("r8", zoo.folders["r8"], pin=True)
    with pytest.raises(OutOfPages, match="slots are pinned"):
        engine.generate([HELLO], GREEDY, "mlp")
    engine.load_adapter("r8", zoo.folders["r8"])  # not pinned any more
    assert engine.generate([HELLO], GREEDY, "mlp")[0].finish_reason == "length"


@pytest.mark.parametrize("was_pinned", [False, True])
def test_a_pinned_reload_that_has_no_room_changes_nothing(open_engine: Opens, zoo: Zoo, was_pinned: bool) -> None:
    engine = open_engine(pages=60)
    old = engine.load_adapter("mine", zoo.folders["r1"], pin=was_pinned)
    before = engine.generate([HELLO], GREEDY, "mine")[0].token_ids
    running = began(engine.submit(HELLO, LONG))
    with pytest.raises(OutOfPages):
        engine.load_adapter("mine", zoo.folders["r33"], pin=True)
    engine.abort(running)
    assert engine.adapter("mine") == old
    assert engine.generate([HELLO], GREEDY, "mine")[0].token_ids == before
    assert [info.pinned for info in engine.adapters() if info.name == "mine"] == [was_pinned]
    assert list(engine._core.scheduler.limits.pins) == [old.version] * was_pinned
    new = engine.load_adapter("mine", zoo.folders["r33"], pin=True)
    assert list(engine._core.scheduler.limits.pins) == [new.version]
    engine.generate([HELLO], GREEDY, "mine")  # it is there
    engine.unload_adapter("mine")
    assert_empty(engine)


def test_a_load_that_fails_ends_those_who_wait_for_it(open_engine: Opens, tmp_path: Path) -> None:
    for prefix_cache in (True, False):
        engine = open_engine(host_cache_bytes=1, prefix_cache=prefix_cache)
        load_and_remove(engine, tmp_path)
        several = SamplingParams(max_tokens=4, n=3)
        generations = [engine.submit([*HELLO, index], several, "vanishing") for index in range(3)]
        for generation in generations:
            with pytest.raises(AdapterError, match="changed since it was loaded"):
                generation.outputs(60)
        assert len(engine.generate([HELLO], GREEDY, "r8")[0].token_ids) == 8
        assert_empty(engine)


def test_a_pinned_adapter_that_cannot_be_brought_ends_nothing_else(open_engine: Opens, tmp_path: Path) -> None:
    engine = open_engine(host_cache_bytes=1)
    load_and_remove(engine, tmp_path)
    engine._pin("vanishing", engine.adapter("vanishing").version)
    assert len(engine.generate([HELLO], GREEDY, "r8")[0].token_ids) == 8
    engine.unload_adapter("vanishing")
    assert_empty(engine)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_adapter_that_overflows_fails_its_answers_by_name_and_no_others(
    open_engine: Opens, zoo: Zoo, tmp_path: Path, temperature: float
) -> None:
    shutil.copytree(zoo.folders["r4-all"], tmp_path / "huge")
    weights = load_file(tmp_path / "huge" / "adapter_model.safetensors")
    save_file(
        {name: 1e22 * tensor for name, tensor in weights.items()}, tmp_path / "huge" / "adapter_model.safetensors"
    )
    engine = open_engine(pages=120)
    engine.load_adapter("huge", tmp_path / "huge")
    params = SamplingParams(max_tokens=20, temperature=temperature, seed=3, ignore_eos=True)
    alone = engine.generate([HELLO], params, "r8")[0].token_ids
    for _ in range(3):
        broken = engine.submit([*HELLO, 5] * 3, SamplingParams(n=2, temperature=temperature, logprobs=1), "huge")
        beside = engine.submit(HELLO, params, "r8")
        with pytest.raises(AdapterError, match=r"numbers are larger .*'huge' is broken"):
            broken.outputs()
        assert beside.outputs()[0].token_ids == alone
    engine.unload_adapter("huge")
    assert_empty(engine)
    assert engine.generate([HELLO], params, "r8")[0].token_ids == alone


def test_abort_of_everything_leaves_nothing(open_engine: Opens) -> None:
    engine = open_engine(pages=150, adapter_slots=3, max_batch=8)
    names = [None, *ADAPTERS]
    several = SamplingParams(max_tokens=200, n=2, ignore_eos=True)
    generations = [engine.submit([index, *HELLO], several, name) for name in names for index in range(6)]
    began(generations[0])
    for generation in generations:
        engine.abort(generation)
    for generation in generations:
        assert {output.finish_reason for output in generation.outputs(60)} == {"abort"}
    assert_empty(engine)
    assert len(engine.generate([HELLO], GREEDY, "r8")[0].token_ids) == 8


def test_close_tells_all_who_wait(open_engine: Opens) -> None:
    engine = open_engine(max_batch=2)
    heard: list[str] = []
    generations = [engine.submit([index, *HELLO], LONG, "r8") for index in range(6)]

    def ask(generation: Generation) -> None:
        with pytest.raises(LLMError, match="closed") as caught:
            generation.outputs()
        heard.append(str(caught.value))

    threads = [threading.Thread(target=ask, args=[each]) for each in generations]
    for thread in threads:
        thread.start()
    began(generations[0])
    engine.close()
    for thread in threads:
        thread.join()
    assert len(heard) == 6
    with pytest.raises(LLMError, match="closed"):
        engine.generate([HELLO], GREEDY)
    with pytest.raises(LLMError, match="closed"):
        engine.stats()
    engine.close()


def test_an_engine_that_nobody_closed_lets_its_process_end(zoo: Zoo) -> None:
    program = f"""
from exoflow.llm import Engine, SamplingParams
engine = Engine({str(zoo.path)!r}, pages=60, block=8)
next(iter(engine.submit([1], SamplingParams(max_tokens=450, ignore_eos=True))))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_exception_inside_a_step_reaches_all(open_engine: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(max_batch=2)
    generations = [began(engine.submit(HELLO, LONG)), *(engine.submit([index], LONG, "r8") for index in range(5))]

    def broken(*args: object) -> torch.Tensor:
        raise ZeroDivisionError("the device is on fire")

    monkeypatch.setattr(engine._core._runner, "run", broken)
    for generation in generations:
        with pytest.raises(LLMError, match="stopped by ZeroDivisionError"):
            generation.outputs(60)
    for ask in (lambda: engine.submit(HELLO, GREEDY).outputs(60), engine.stats, engine.adapters):
        with pytest.raises(LLMError, match="stopped by ZeroDivisionError"):
            ask()
    assert engine.error is not None
    engine.close()


def test_an_order_that_breaks_loses_none_of_those_behind_it(open_engine: Opens) -> None:
    engine = open_engine()
    gate = threading.Event()

    def hold() -> None:
        gate.wait(60)

    def broken() -> None:
        raise ZeroDivisionError("no")

    engine._thread.order(hold)
    told: list[LLMError] = []
    engine._thread.order(broken, told.append)
    later = engine.submit(HELLO, GREEDY)
    gate.set()
    with pytest.raises(LLMError, match="ZeroDivisionError"):
        later.outputs(60)
    assert "ZeroDivisionError" in str(told[0])


def test_values_that_are_not_finite_stay_with_whom_they_belong_to(open_engine: Opens, tmp_path: Path, zoo: Zoo) -> None:
    folder = tmp_path / "wild"
    shutil.copytree(zoo.folders["r4-all"], folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: weight * 1e25 for name, weight in weights.items()}, folder / "adapter_model.safetensors")
    engine = open_engine(pages=45, prefix_cache=False)
    engine.load_adapter("wild", folder)
    expected = zoo.greedy(HELLO, "r1", 8)[0]
    long = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
    for _ in range(2):  # its KV is overflow; the pages go to others afterwards
        for wild in [engine.submit(prompt, long, "wild") for prompt in (HELLO, list(range(100)))]:
            with pytest.raises(AdapterError, match="larger than its dtype holds"):
                wild.outputs(60)
        outputs = engine.generate([HELLO] * 4 + [list(range(60))], GREEDY, "r1")
        assert [list(output.token_ids) for output in outputs[:4]] == [expected] * 4


def test_logits_are_whole_after_a_preemption(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine(pages=44, token_budget=8, max_batch=4)
    prompts = [[(index * step) % 256 for index in range(100)] for step in (3, 5, 7, 11)]
    running = [engine.submit([each, 1, 2], SamplingParams(max_tokens=150, ignore_eos=True)) for each in range(3)]
    found = engine.logits(prompts, None)
    for prompt, rows in zip(prompts, found, strict=True):
        assert (rows - zoo.logits(prompt, None)).abs().max() <= 1e-4
    for generation in running:
        generation.outputs(60)
    assert engine.stats().preemptions > 0
    with contextlib.suppress(LLMError):
        engine.close()
