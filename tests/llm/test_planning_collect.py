"""``collect``: n samples a question, each paid for once; killed and resumed, it asks for what is missing."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exoflow import flow
from exoflow.errors import CallRefused
from exoflow.llm import LLM, Log, Prices, choice, collect, curve, filter_vote, number, vote
from exoflow.llm.planning import Sample
from exoflow.testing import Asked, FakeEndpoint, Reply

PRICES = Prices(1, 2)
QUESTIONS = [{"id": f"q{i}", "prompt": f"question {i}", "answer": "A" if i % 2 else "B"} for i in range(4)]


def said(asked: Asked) -> str:
    return "ABAC"[asked.nth % 4]


def model(endpoint: FakeEndpoint, **options: object) -> LLM:
    return LLM(endpoint.url, model="fake", prices=PRICES, max_tokens=5, retries=0, **options)  # type: ignore[arg-type]


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with FakeEndpoint(said) as found:
        yield found


def collected(endpoint: FakeEndpoint, questions: object = QUESTIONS, **options: object) -> Log:
    found: Log = collect.options(store="memory://").run(model(endpoint), questions, **options)  # type: ignore[arg-type]
    return found


def test_each_question_is_asked_n_times_and_a_line_a_sample_is_logged(endpoint: FakeEndpoint) -> None:
    log = collected(endpoint, n=5, parse=choice("AB"))
    assert len(endpoint.asked) == len(endpoint.billed()) == len(log) == 20
    assert [(each.id, each.index) for each in log] == [(f"q{i}", j) for i in range(4) for j in range(5)]
    first = [each for each in log if each.id == "q1"]
    assert sorted((each.text, each.answer, each.correct) for each in first) == [
        ("A", "A", True), ("A", "A", True), ("A", "A", True), ("B", "B", False), ("C", None, False),
    ]  # fmt: skip
    (silent,) = (each for each in first if each.abstained)
    assert "none of A, B" in silent.why
    assert {(each.tokens, each.nano_usd) for each in log} == {(3, 4_000)}
    assert float(log.usd) == pytest.approx(20 * 4e-6)


def test_a_curve_of_a_log_is_what_votes_get_right(endpoint: FakeEndpoint) -> None:
    log = collected(endpoint, n=4, parse=choice("ABC"))
    right = [vote.options(store="memory://").run(model(endpoint), prompt="question 1", k=4, parse=choice("ABC")).answer]
    assert right == ["A"]
    assert curve(log, replicates=10)[4].accuracy == 0.5  # A wins all four items, and is right in two


def test_answers_that_are_the_same_are_spelled_the_same_and_labels_are_read_as_answers_are() -> None:
    with FakeEndpoint(lambda asked: ["It is 4.", "4.0", "four: 4", "5"][asked.nth]) as endpoint:
        log = collected(endpoint, [{"id": 1, "prompt": "2 + 2 =", "answer": "4.00"}], n=4, parse=number)
    assert sum(each.correct is True for each in log) == 3
    assert len({each.answer for each in log}) == 2


def test_without_a_label_nothing_is_right_or_wrong(endpoint: FakeEndpoint) -> None:
    log = collected(endpoint, [{"id": 1, "messages": [{"role": "user", "content": "?"}]}], n=2)
    assert [each.correct for each in log] == [None, None]
    with pytest.raises(ValueError, match="accuracy needs labels: 1 item"):
        curve(log)


def short(question: object, answer: object) -> bool:
    return question == "question 0" and answer == "A"


async def asked_itself(question: object, answer: object) -> bool:
    url = os.environ["JUDGE_URL"]
    said = await LLM(url, model="fake", prices=PRICES, max_tokens=5)(prompt=f"is {answer} right?")
    return said.text == "A"


def test_a_judge_says_what_passes_and_what_abstains_is_not_judged(endpoint: FakeEndpoint) -> None:
    log = collected(endpoint, n=4, parse=choice("AB"), judge=short)
    assert {(each.id, each.answer) for each in log if each.passed} == {("q0", "A")}
    assert {each.passed for each in log if each.abstained} == {None}
    judged = filter_vote.options(store="memory://").run(
        model(endpoint), prompt="question 0", k=4, parse=choice("AB"), judge=short
    )
    assert judged.answer == "A"
    assert curve(log, rule="filter_vote", replicates=10)[4].accuracy == 0.5


def test_what_a_judge_asks_is_in_the_price_of_the_sample(
    endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_URL", endpoint.url)
    log = collected(endpoint, QUESTIONS[:1], n=2, judge=asked_itself)
    assert len(endpoint.asked) == 4
    assert all(each.nano_usd > 4_000 and each.tokens > 3 for each in log)


def test_it_is_a_child_in_a_flow(endpoint: FakeEndpoint) -> None:
    @flow
    def worth(llm: LLM) -> float:
        return curve(collect(llm, QUESTIONS, n=3, parse=choice("ABC")), replicates=10)[1].accuracy

    assert worth.options(store="memory://").run(model(endpoint)) == pytest.approx(1 / 2)


def test_a_file_is_read_once(endpoint: FakeEndpoint, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    log = collected(endpoint, path, n=1)
    assert [each.id for each in log] == ["q0", "q1", "q2", "q3"]
    with pytest.raises(ValueError, match="of no format that is known here"):
        collected(endpoint, "rows.csv", n=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n": 0}, "n=0 must be"), ({"n": True}, "n=True"), ({"refused": "skip"}, "'fail' or 'abst")],
)
def test_options_that_make_no_sense_are_refused(
    endpoint: FakeEndpoint, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        collected(endpoint, **options)
    assert not endpoint.asked


def test_a_call_that_fails_is_made_again_by_resume_and_no_other() -> None:
    broken = threading.Event()
    broken.set()

    def answer(asked: Asked) -> str | Reply:
        return Reply("", status=400) if asked.prompt == "question 2" and broken.is_set() else said(asked)

    with FakeEndpoint(answer) as endpoint:
        run = collect.options(run_id="c", store="memory://failing")
        with pytest.raises(CallRefused) as failed:
            run.run(model(endpoint), QUESTIONS, n=3)
        assert "1 of 4 questions lack samples: collect.resume(run_id) asks for them" in failed.value.__notes__
        assert len(endpoint.asked) == 12
        broken.clear()
        endpoint.forget()
        log = run.resume("c")
        assert [each.prompt for each in endpoint.asked] == ["question 2"] * 3
    assert len(log) == 12


def test_what_is_refused_for_what_it_asks_abstains_if_so_wished() -> None:
    def answer(asked: Asked) -> str | Reply:
        return Reply("", status=401 if asked.prompt == "who?" else 400)

    with FakeEndpoint(answer) as endpoint:
        log = collected(endpoint, QUESTIONS[:1], n=2, refused="abstain")
        assert [(each.abstained, each.correct, each.tokens) for each in log] == [(True, False, 0)] * 2
        assert "400" in log[0].why
        with pytest.raises(CallRefused, match="key is missing or wrong"):
            collected(endpoint, [{"id": 1, "prompt": "who?"}], n=2, refused="abstain")


PROGRAM = """
    import os
    from exoflow.llm import LLM, Prices, choice, collect

    if __name__ == "__main__":
        llm = LLM(os.environ["URL"], model="fake", prices=Prices(1, 2), max_tokens=5, max_in_flight=16)
        rows = [{"id": i, "prompt": f"question {i}", "answer": "A"} for i in range(30)]
        collect.options(run_id="c", store="store").run(llm, rows, n=10, parse=choice("ABC")).write("log.jsonl")
"""


def test_killed_and_resumed_it_makes_only_the_missing_calls(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    deaths = [60, 150, 230]
    reached = {number: threading.Event() for number in deaths}
    total = 0
    counting = threading.Lock()

    def answer(asked: Asked) -> str:
        nonlocal total
        with counting:
            total += 1
            if total in reached:
                reached[total].set()
        return "A" if asked.key.endswith(("[sample-1]", "[sample-2]")) else "B"  # asked again, it says the same

    with FakeEndpoint(answer, delay_s=0.005) as endpoint:

        def begin() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "program.py"], cwd=tmp_path, env={**os.environ, "URL": endpoint.url}
            )

        for number in deaths:
            with begin() as process:
                assert reached[number].wait(60)
                process.send_signal(signal.SIGKILL)
        with begin() as process:
            assert process.wait(60) == 0
        billed = endpoint.billed()
        with begin() as process:  # once more: it is done
            assert process.wait(60) == 0
        assert endpoint.billed() == billed
    assert len(billed) == 300
    log = Log.read(tmp_path / "log.jsonl")
    assert len(log) == 300
    assert float(log.usd) == pytest.approx(300 * 4e-6)
    assert curve(log, replicates=10)[1].accuracy == pytest.approx(0.2)
    again = {key for key, times in billed.items() if times > 1}
    assert again <= {key_of(each) for each in log if each.maybe_rebilled}  # each is reported
    assert len(again) <= len(deaths) * 16


def key_of(sample: Sample) -> str:
    return f"c/exoflow.llm.planning.asked_often[{sample.id}]/llm[sample-{sample.index}]"
