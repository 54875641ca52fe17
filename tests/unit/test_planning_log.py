"""Logs and data sets as files, and what is wrong with one said by its place."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from exoflow.llm.planning import Log, Sample
from exoflow.llm.planning.files import checked, read_rows
from exoflow.llm.planning.progress import Progress

LOG = Log(
    [
        Sample("q1", 0, "It is A — sûr.", "A", "", True, 12, 1_500, 0.25, True),
        Sample("q1", 1, "no idea", None, "it names none of A, B", False, 11, 123_456_789_012, 0.5),
        Sample("q2", 0, "B", "B", "", None, 3, 0, 0.125, False, True),
    ]
)


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_a_log_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    LOG.write(tmp_path / name)
    assert Log.read(tmp_path / name) == LOG
    assert Log.read(str(tmp_path / name)).usd == Decimal("123.456790512")


def test_a_line_is_a_sample_with_answer_or_abstained(tmp_path: Path) -> None:
    LOG.write(tmp_path / "log.jsonl")
    first, second, _ = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert first == {
        "id": "q1", "index": 0, "text": "It is A — sûr.", "answer": "A", "correct": True, "tokens": 12, "usd": 1.5e-06,
        "seconds": 0.25, "passed": True,
    }  # fmt: skip
    assert second["abstained"] is True and "answer" not in second


def test_a_log_of_anybody_needs_few_fields() -> None:
    (sample,) = Log([{"id": 7, "index": 0, "answer": 42, "other": 1}])
    assert (sample.id, sample.answer, sample.correct, sample.usd) == ("7", "42", None, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"index": 0, "answer": "A"}, "row 1 of the log has no id; it has index, answer"),
        ({"id": "q", "index": 0}, "has no answer"),
        ({}, "it has nothing"),
        ({"id": "q", "index": -1, "answer": "A"}, "index is -1"),
        ({"id": "q", "index": 0, "answer": "A", "correct": "yes"}, "correct is 'yes', neither true nor false"),
        ({"id": "q", "index": 0, "answer": "A", "usd": -0.5}, "usd is -0.5, no amount of dollars"),
        ({"id": "q", "index": 0, "answer": "A", "usd": "much"}, "usd is 'much'"),
        ({"id": "q", "index": 0, "answer": "A", "usd": "nan"}, "usd is 'nan'"),
        ({"id": "q", "index": 0, "abstained": True, "correct": True}, "an abstention never is"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Log([row])


def test_a_sample_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="has sample 0 of item 'q' 2 times"):
        Log([{"id": "q", "index": 0, "answer": "A"}, {"id": "q", "index": 0, "answer": "B"}])
    with pytest.raises(ValueError, match="'A' both as correct and as wrong"):
        _ = Log({"id": "q", "index": i, "answer": "A", "correct": bool(i)} for i in range(2)).items
    with pytest.raises(TypeError, match="no mapping"):
        Log([("q", 0)])  # type: ignore[list-item]


@pytest.mark.parametrize(("name", "read"), [("log.jsonl", "\ud83d"), ("log.parquet", "\ufffd")])
def test_half_a_character_in_an_answer_is_written(name: str, read: str, tmp_path: Path) -> None:
    LOG.write(tmp_path / name)
    log = Log([Sample("q", 0, "sûr \ud83d", "A"), Sample("q", 1, "\ud83d\ude00", "A")])
    log.write(tmp_path / name)
    assert [sample.text for sample in Log.read(tmp_path / name)] == [f"sûr {read}", "😀"]


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_a_log_that_cannot_be_written_leaves_the_one_that_was_there(name: str, tmp_path: Path) -> None:
    LOG.write(tmp_path / name)
    with pytest.raises((TypeError, ValueError, OverflowError)):
        Log([*LOG, Sample("q3", 0, "x", object())]).write(tmp_path / name)  # type: ignore[arg-type]  # no answer is that
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert Log.read(tmp_path / name) == LOG


@pytest.mark.parametrize(
    ("name", "told"), [("log.jsonl", "log.jsonl:3: .* was it cut off"), ("log.parquet", "not all")]
)
def test_a_file_that_was_cut_off_says_so(name: str, told: str, tmp_path: Path) -> None:
    LOG.write(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-40])
    with pytest.raises(ValueError, match=told):
        Log.read(tmp_path / name)


def test_files_of_no_known_format_and_broken_lines_are_refused_by_their_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its name ends with \.jsonl or \.parquet"):
        LOG.write(tmp_path / "log.csv")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1, "prompt": "?"}\n\n{"id": 2,\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:3: this is no JSON"):
        read_rows(str(path))
    path.write_text("[1]\n")
    with pytest.raises(TypeError, match=r"rows\.jsonl:1: a row is a JSON object"):
        read_rows(str(path))
    path.write_text('{"id": "q", "index": 0, "answer": "A", "tokens": 1.5}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 1: tokens is"):
        Log.read(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "?"}], "row 1 of the data set has no id; it has prompt"),
        ([{"id": 1}], "row 1 of the data set, id 1, has neither prompt nor messages"),
        ([{"id": 1, "prompt": "?", "messages": []}], "both prompt and messages"),
        ([{"id": 1, "prompt": "?"}, {"id": "1", "prompt": "!"}], "row 2 of the data set has the id '1', and so has"),
        ([], "no rows"),
    ],
)
def test_a_data_set_that_cannot_be_asked_is_refused(rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(rows)


class Frame(list[dict[str, object]]):
    """As pandas' DataFrame: what it iterates over are no rows."""

    def to_dict(self) -> None: ...


@pytest.mark.parametrize("rows", [None, 5, Frame()], ids=["None", "5", "DataFrame"])
def test_a_data_set_that_is_none_is_refused_with_what_to_give(rows: object) -> None:
    with pytest.raises(TypeError, match=r"the data set is a .*give rows, .*df.to_dict\('records'\), or the name"):
        checked(rows)  # type: ignore[arg-type]  # that is what is tested


def test_messages_of_a_file_hold_what_json_holds(tmp_path: Path) -> None:
    row = {"id": 1, "messages": [{"role": "user", "content": "x", "weight": 0.5}], "answer": 0.1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (found,) = read_rows(str(tmp_path / "rows.jsonl"))
    assert json.dumps(found["messages"]) == json.dumps(row["messages"])
    assert found["answer"] == Decimal("0.1")


class NA:
    """As pandas' NA: it compares to nothing."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __ne__ = __eq__
    __hash__ = object.__hash__


@pytest.mark.parametrize("missing", [None, float("nan"), Decimal("nan"), NA()], ids=["None", "nan", "NaN", "NA"])
def test_what_a_table_has_for_nothing_is_no_label_no_answer_and_no_prompt(missing: object) -> None:
    assert checked([{"id": 1, "prompt": "x", "messages": missing, "answer": missing}]) == [{"id": "1", "prompt": "x"}]
    with pytest.raises(ValueError, match="neither prompt nor messages"):
        checked([{"id": 1, "prompt": missing}])
    with pytest.raises(ValueError, match="has no id"):
        checked([{"id": missing, "prompt": "x"}])
    said, silent = Log(
        [
            {"id": 1, "index": 0, "answer": "A", "abstained": missing, "correct": missing, "usd": missing},
            {"id": 1, "index": 1, "answer": missing, "abstained": True, "passed": missing},
        ]
    )
    assert (said.answer, said.correct, said.usd, silent.answer) == ("A", None, 0, None)


def test_other_fields_of_a_data_set_are_left_out() -> None:
    assert checked([{"id": 1, "prompt": "?", "answer": "A", "source": "x"}]) == [
        {"id": "1", "prompt": "?", "answer": "A"}
    ]
    with pytest.raises(TypeError, match="row 1 of the data set is no mapping"):
        checked(["?"])  # type: ignore[list-item]


def test_progress_says_samples_and_money_and_logs_each_tenth(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        progress = Progress(30)
        for _ in range(10):
            progress.add(LOG.samples)
    assert str(progress) == "30 of 30 samples, $1234.567905"
    assert len(caplog.records) == 10
    assert caplog.messages[0] == "collected 3 of 30 samples, $123.456791"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "b", "prompt": 5}, "row 2 of the data set, id 'b': prompt=5 must be text"),
        ({"id": "b", "messages": []}, r"row 2 of the data set, id 'b': messages=\[\] asks nothing"),
        ({"id": "", "prompt": "?"}, "row 2 of the data set, id '': key='' names nothing"),
    ],
)
def test_a_question_that_cannot_be_asked_is_found_before_the_others_are_paid_for(
    row: dict[str, object], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        checked([{"id": "a", "prompt": "?"}, row])


@pytest.mark.parametrize("seconds", ["soon", -1, "nan", float("inf")])
def test_seconds_that_are_none_are_found(seconds: object) -> None:
    with pytest.raises(ValueError, match="row 1 of the log: seconds is"):
        Log([{"id": "a", "index": 0, "answer": "A", "seconds": seconds}])
