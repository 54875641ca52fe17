"""Whose answer it is: an output is that of the version that it names, whatever its name means before or later."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from llm_zoo import Zoo

from exoflow.errors import AdapterError
from exoflow.llm import Engine, SamplingParams
from exoflow.llm.engine.generation import Generation

Opens = Callable[..., Engine]
PROMPT = [(3 * index) % 256 for index in range(40)]
SHORT = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)
LONG = SamplingParams(max_tokens=80, temperature=0, ignore_eos=True)


def began(generation: Generation) -> Generation:
    next(iter(generation))
    return generation


def expected(zoo: Zoo, name: str | None, count: int) -> list[int]:
    tokens, margins = zoo.greedy(PROMPT, name, count)
    assert min(margins) > 1e-3
    return tokens


def test_a_reload_in_mid_stream_changes_new_requests_only(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine()
    old = engine.load_adapter("mine", zoo.folders["r8"])
    before = began(engine.submit(PROMPT, LONG, "mine"))
    new = engine.load_adapter("mine", zoo.folders["r4-all"])
    assert new.version != old.version
    after = engine.submit(PROMPT, SHORT, "mine")
    (old_output,), (new_output,) = before.outputs(60), after.outputs(60)
    assert old_output.adapter == old
    assert list(old_output.token_ids) == zoo.greedy(PROMPT, "r8", 80)[0]
    assert new_output.adapter == new
    assert list(new_output.token_ids) == expected(zoo, "r4-all", 12)


def test_kv_of_an_earlier_content_is_never_found(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine()
    engine.load_adapter("mine", zoo.folders["r8"])
    engine.generate([PROMPT], SHORT, "mine")
    assert engine.generate([PROMPT], SHORT, "mine")[0].usage.cached_tokens > 0
    engine.load_adapter("mine", zoo.folders["r4-all"])
    (output,) = engine.generate([PROMPT], SHORT, "mine")
    assert output.usage.cached_tokens == 0
    assert list(output.token_ids) == expected(zoo, "r4-all", 12)


def test_kv_of_one_adapter_is_not_anothers_and_not_the_bases(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine()
    for name in (None, "r8", "r4-all"):
        (output,) = engine.generate([PROMPT], SHORT, name)
        assert output.usage.cached_tokens == 0
        assert list(output.token_ids) == expected(zoo, name, 12)


def test_two_names_of_one_content_share_its_kv(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine()
    first, second = (engine.load_adapter(name, zoo.folders["r8"]) for name in ("one", "two"))
    assert first.version == second.version
    engine.generate([PROMPT], SHORT, "one")
    (output,) = engine.generate([PROMPT], SHORT, "two")
    assert output.usage.cached_tokens > 0
    assert output.adapter == second


def test_unload_lets_requests_finish_and_refuses_new_ones(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine(max_batch=2)
    running = [began(engine.submit(PROMPT, LONG, "r8")), engine.submit(PROMPT, LONG, "r8")]
    waiting = [engine.submit(PROMPT, SHORT, "r8") for _ in range(3)]
    engine.unload_adapter("r8")
    with pytest.raises(AdapterError, match="'r8'"):
        engine.submit(PROMPT, SHORT, "r8")
    for generation in running:
        assert list(generation.outputs(60)[0].token_ids) == zoo.greedy(PROMPT, "r8", 80)[0]
    for generation in waiting:
        assert list(generation.outputs(60)[0].token_ids) == expected(zoo, "r8", 12)
    assert engine.stats().resident == 0  # nobody needs it any more
    assert "r8" not in [info.name for info in engine.adapters()]


@pytest.mark.parametrize("broken", ["missing", "weights", "config"])
def test_a_broken_directory_leaves_the_engine_serving(
    broken: str, open_engine: Opens, zoo: Zoo, tmp_path: Path
) -> None:
    engine = open_engine()
    running = began(engine.submit(PROMPT, LONG, "r8"))
    folder = tmp_path / "broken"
    if broken != "missing":
        shutil.copytree(zoo.folders["r4-all"], folder)
        name = "adapter_model.safetensors" if broken == "weights" else "adapter_config.json"
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
    for name in ("r8", "new"):
        with pytest.raises(AdapterError):
            engine.load_adapter(name, folder)
    assert list(running.outputs(60)[0].token_ids) == zoo.greedy(PROMPT, "r8", 80)[0]
    assert list(engine.generate([PROMPT], SHORT, "r8")[0].token_ids) == expected(zoo, "r8", 12)
    with pytest.raises(AdapterError, match="'new'"):
        engine.submit(PROMPT, SHORT, "new")


def test_under_fire_every_output_is_that_of_the_version_it_names(open_engine: Opens, zoo: Zoo) -> None:
    """Two contents under one name, changed while eight threads ask."""
    engine = open_engine(pages=90, adapter_slots=3, max_batch=6)
    contents = {engine.load_adapter("mine", zoo.folders[name]).version: name for name in ("r8", "r4-all")}
    answers = {name: expected(zoo, name, 12) for name in contents.values()}
    done = threading.Event()
    seen: set[str] = set()

    def ask(number: int) -> int:
        asked = 0
        while not done.is_set() or asked < 3:
            params = SamplingParams(max_tokens=4 + number, temperature=0, ignore_eos=True)
            (output,) = engine.generate([PROMPT], params, "mine")
            assert output.adapter is not None
            name = contents[output.adapter.version]
            assert list(output.token_ids) == answers[name][: 4 + number]
            seen.add(name)
            asked += 1
        return asked

    with ThreadPoolExecutor(8) as pool:
        counts = [pool.submit(ask, number) for number in range(8)]
        try:
            for turn in range(30):
                engine.load_adapter("mine", zoo.folders[["r8", "r4-all"][turn % 2]])
                engine.generate([[turn, 1, 2]], SHORT, ["r1", "r33", None][turn % 3])  # others need the memory, too
        finally:
            done.set()
        assert all(count.result() >= 3 for count in counts)
    assert seen == {"r8", "r4-all"}


def test_the_same_content_again_changes_nothing(open_engine: Opens, zoo: Zoo) -> None:
    engine = open_engine()
    engine.generate([PROMPT], SHORT, "r8")
    before = engine.stats().loads
    engine.load_adapter("r8", zoo.folders["r8"])
    (output,) = engine.generate([PROMPT], SHORT, "r8")
    assert output.usage.cached_tokens > 0
    assert engine.stats().loads == before
