"""examples/vote: its questions and rules; the whole program on a model that knows nothing, through its own kill."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from llm_zoo import Zoo

from exoflow.llm import Log

EXAMPLE = Path(__file__).parents[2] / "examples" / "vote"
sys.path.append(str(EXAMPLE))  # as for a script

from vote_asked import Asked  # noqa: E402  its folder is on the path only from here on
from vote_tasks import OPPOSITES, TASKS, digits, line, may_be_its_letter, may_be_its_opposite, name, word  # noqa: E402

SAID = {
    "letters": (' "K".\n', "K"),
    "opposites": ("Cold.", "Cold"),
    "completed": (" cold, of course", "cold"),
    "capitals": (" the city of Brasília, which", "Brasilia"),
    "sums": (" 65\n", "65"),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_has_forty_questions_and_each_right_answer_is_read_as_it_is(task: str) -> None:
    rows = TASKS[task].rows
    assert len({row["id"] for row in rows}) == len(rows) == 40
    for row in rows:
        assert TASKS[task].parse(row["answer"]) == row["answer"]


@pytest.mark.parametrize("task", [task for task in TASKS if TASKS[task].judge])
def test_a_rule_passes_every_right_answer(task: str) -> None:
    judge = TASKS[task].judge
    assert judge is not None
    for row in (*TASKS[task].rows, *TASKS[task].spare):
        assert judge(row.get("messages") or row["prompt"], row["answer"])


def test_rules_refuse_what_cannot_be_right() -> None:
    letters, words = TASKS["letters"].rows[0]["messages"], TASKS["opposites"].rows[0]["messages"]
    assert [may_be_its_letter(letters, said) for said in ("A", "L", "z", "apple", "ap")] == [True, True, *[False] * 3]
    assert [may_be_its_opposite(words, said) for said in ("warm", "hot", "Opposite", "not hot", "c0ld")] == [
        True,
        *[False] * 4,
    ]
    assert not may_be_its_opposite("The opposite of hot is", "hot")


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_read_in_the_forms_that_models_give_them(task: str) -> None:
    text, answer = SAID[task]
    assert TASKS[task].parse(text) == answer


@pytest.mark.parametrize("parse", [line, word, name, digits])
def test_what_says_nothing_abstains(parse: Any) -> None:
    assert parse(" ...\n") is None


def test_examples_in_the_prompt_are_none_of_the_questions() -> None:
    for task in ("letters", "opposites"):
        shown = TASKS[task].rows[0]["messages"][:-1]
        asked = {row["id"] for row in (*TASKS[task].rows, *TASKS[task].spare)}
        assert not asked & {each for message in shown for each in re.findall(r"\w+", message["content"])}
    assert len(set(OPPOSITES)) == 40


def program(folder: Path, model: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / "vote.py"), "--folder", str(folder), "--model", model, *more]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)


@pytest.mark.big
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_program_is_killed_in_the_middle_and_asks_only_for_what_is_missing(zoo: Zoo, tmp_path: Path) -> None:
    few = "--items", "3", "--samples", "5"
    first = program(tmp_path, str(zoo.path), *few)
    assert first.returncode == 0, first.stdout + first.stderr
    samples, live = 3 * 5 * len(TASKS), 4 * 2 * 5
    assert f"Killed, with SIGKILL, at question {samples // 2}." in first.stdout
    asked = Asked(tmp_path / "asked-3-5")
    died, went_on = asked.by_process().values()
    assert died == samples // 2
    twice = len(asked) - samples - live
    assert 0 < twice <= died
    assert f"{samples + live} calls were needed; the engine was given {died + went_on}" in first.stdout
    assert f"Asked twice: {twice}." in first.stdout
    logs = {task: Log.read(tmp_path / f"{task}.jsonl") for task in TASKS}
    assert {task: len(log) for task, log in logs.items()} == dict.fromkeys(TASKS, 15)
    assert (tmp_path / "votes.png").stat().st_size > 10_000
    assert "</svg>" in (tmp_path / "votes.svg").read_text()

    again = program(tmp_path, str(zoo.path), *few)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(asked) == died + went_on
    assert {task: Log.read(tmp_path / f"{task}.jsonl") for task in TASKS} == logs


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--items", "41"], "there are 1 to 40"),
        (["--samples", "4"], "at least 5"),
        (["--model", "/nowhere/model.gguf"], "there is no file"),
    ],
    ids=["items", "samples", "model"],
)
def test_what_cannot_be_is_told(tmp_path: Path, wrong: list[str], said: str) -> None:
    ended = program(tmp_path, "smollm2", *wrong)
    assert ended.returncode in (1, 2)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.big
@pytest.mark.timeout(900)
def test_votes_of_a_real_model_are_right_more_often_than_its_samples(tmp_path: Path) -> None:
    ended = program(tmp_path, "smollm2", "--quick")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    logs = {task: Log.read(tmp_path / f"{task}.jsonl") for task in TASKS}
    right = {task: sum(bool(sample.correct) for sample in log) / len(log) for task, log in logs.items()}
    assert all(0.1 < share < 0.95 for share in right.values()), right
