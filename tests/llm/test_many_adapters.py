"""examples/many_adapters: styles and rules, its flow under a real kill, its training, its comparison with PEFT."""

from __future__ import annotations

import io
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from llm_zoo import Zoo
from rich.console import Console

EXAMPLE = Path(__file__).parents[2] / "examples" / "many_adapters"
sys.path.append(str(EXAMPLE))  # as for a script

import many_adapters_showing as showing  # noqa: E402  its folder is on the path only from here on
import many_adapters_training as training  # noqa: E402  likewise
from many_adapters import Adapter  # noqa: E402  likewise
from many_adapters_data import STYLES, THINGS, UNSEEN, Sight, lessons, unseen  # noqa: E402  likewise

SIGHTS = [Sight(count, thing, doing) for thing, doing in THINGS.items() for count in range(2, 10)]


@pytest.mark.parametrize("name", STYLES)
def test_a_rule_is_kept_by_its_own_style_and_by_no_other(name: str) -> None:
    kept = {other: sum(STYLES[name].is_kept(s, style.says(s)) for s in SIGHTS) for other, style in STYLES.items()}
    assert kept == dict.fromkeys(STYLES, 0) | {name: len(SIGHTS)}


@pytest.mark.parametrize("name", STYLES)
def test_a_rule_is_not_kept_by_an_answer_about_something_else(name: str) -> None:
    assert not STYLES[name].is_kept(Sight(3, "robots"), STYLES[name].says(Sight(4, "cats", "sleep in the sun")))


def test_lessons_are_the_same_each_time_and_other_ones_for_another_seed() -> None:
    assert lessons("pirate", 40, seed=1) == lessons("pirate", 40, seed=1) != lessons("pirate", 40, seed=2)


def test_nothing_is_asked_about_that_was_in_a_lesson() -> None:
    assert not set(THINGS) & set(UNSEEN)
    assert len({sight.question for sight in unseen(8)}) == 8


FAKE = """
import os, signal, sys, types
from pathlib import Path

example, log, killed_in, *names = sys.argv[1:]
sys.path.insert(0, example)
import many_adapters

def fit(model, lessons, steps, seed, tell):
    name = lessons
    with open(log, "a") as file:
        print(name, file=file)
    tell(1.0)
    if name == killed_in:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"adapter_config.json": name.encode(), "adapter_model.safetensors": bytes(100_000)}

sys.modules["many_adapters_training"] = types.SimpleNamespace(BATCH=1, fit=fit)
many_adapters.lessons = lambda name, count, seed: name
for adapter in many_adapters.train_all(Path(log).parent, many_adapters.Plan(tuple(names))):
    assert Path(adapter.path, "adapter_config.json").read_text() == adapter.name
"""


def live(log: Path, killed_in: str, *names: str) -> subprocess.CompletedProcess[str]:
    """The flow in a process of its own, with a trainer that only notes whom it trains."""
    command = [sys.executable, "-c", FAKE, str(EXAMPLE), str(log), killed_in, *names]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_a_program_that_was_killed_trains_only_what_is_missing(tmp_path: Path) -> None:
    names, log = ("pirate", "shout", "json", "haiku"), tmp_path / "log"
    assert live(log, "json", *names).returncode == -signal.SIGKILL
    again = live(log, "", *names)
    assert again.returncode == 0, again.stderr
    trained = log.read_text().split()
    # The next one begins when the one before is published, and that is when it is durable: no more is trained twice.
    assert trained[:3] == ["pirate", "shout", "json"]
    assert trained[3:] == ["json", "haiku"]
    assert [line.split()[1] for line in again.stdout.splitlines()[:4]] == ["kept:", "kept:", "trained", "trained"]
    third = live(log, "", *names)
    assert "0 trained now, 4 kept from before" in third.stdout
    assert log.read_text().split() == trained


def test_fit_leaves_the_base_as_it_was_and_learns(zoo: Zoo) -> None:
    tokens, losses = torch.tensor([[1, 2, 3]]), []
    model = str(zoo.path)
    before = training.base(model)[0](tokens).logits
    files = training.fit(model, lessons("json", 8, 0), 3, 0, losses.append)
    assert torch.equal(training.base(model)[0](tokens).logits, before)
    assert sorted(files) == ["adapter_config.json", "adapter_model.safetensors"]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 3


def adapters_of(zoo: Zoo, *names: str) -> list[Adapter]:
    return [Adapter(name, str(zoo.folders[name]), 0, 0, 0, 0) for name in names]


def test_each_adapter_of_a_mixed_batch_answers_as_pefts_does(zoo: Zoo) -> None:
    console = Console(file=io.StringIO())
    served = showing.ask(str(zoo.path), adapters_of(zoo, "r1", "r8", "r16-all"), unseen(2), console)
    assert [(each.name, each.as_peft) for each in served] == [(e.name, len(e.behind)) for e in served]
    assert len({each.outputs[0].token_ids for each in served}) == 4


def test_another_adapters_answer_is_told_from_pefts(zoo: Zoo) -> None:
    prompt = [random.Random(1).randrange(256) for _ in range(20)]
    answer, _ = zoo.greedy(prompt, "r8", 16)
    model = str(zoo.path)
    assert max(training.behind_best(model, zoo.folders["r8"], [(prompt, answer)])) <= showing.TIE
    for other in ("r1", "r16-all"):
        assert max(training.behind_best(model, zoo.folders[other], [(prompt, answer)])) > showing.TIE
    assert max(training.behind_best(model, None, [(prompt, answer)])) > showing.TIE


@pytest.mark.big
@pytest.mark.timeout(900)
def test_two_real_adapters_are_trained_through_a_kill_and_answer_as_pefts_do(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "many_adapters.py"), "--folder", str(tmp_path)]
    command += ["--adapters", "2", "--steps", "6", "--questions", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert any(line.startswith("pirate ") for line in first.stdout), "it ended before it was killed"
        first.kill()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"kept: process {first.pid} trained it" in again.stdout
    assert "1 trained now, 1 kept from before" in again.stdout
