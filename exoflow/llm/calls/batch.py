"""OpenAI's batches: many calls in one file, for half the price and within a day. In a flow, and found again after it.

https://platform.openai.com/docs/guides/batch: a JSONL file is uploaded, a batch is made of it, and its results come in
two files, of those that were answered and of those that were not, in any order. Each line has its ``custom_id``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from exoflow.attempts import current_attempt
from exoflow.context import idempotency_key
from exoflow.errors import CallFailed, CallRefused, Unanswered
from exoflow.llm.calls import endpoint
from exoflow.llm.calls.answer import Answer, bill_of
from exoflow.llm.calls.calling import answer_of
from exoflow.llm.calls.failures import EXCERPT, Failed, failed_with
from exoflow.llm.calls.forms import check_findable
from exoflow.llm.calls.how import How, Model
from exoflow.llm.calls.question import Messages, Question
from exoflow.llm.calls.reading import Unreadable, mapping, whole
from exoflow.llm.calls.recorded import own_labels
from exoflow.llm.calls.retrying import Retries
from exoflow.options import number as check_number
from exoflow.paid import Bill, dispatching, may_be_paid_twice, paid_task, tell_bill
from exoflow.refs import Ref

logger = logging.getLogger(__name__)

MARK = "exoflow_call"
"""In a batch's metadata: whose it is, so that it is found again if its id was lost."""
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")
Json = Mapping[str, Any]


BATCH_MAX = 50_000
"""Of calls: what OpenAI takes."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch that the endpoint has."""

    id: str
    mark: str
    """Begins the ``custom_id`` of each of its calls; the rest is a number."""


def begun(
    llm: Model,
    messages: Sequence[Messages] | None,
    prompts: Sequence[str] | None,
    params: Mapping[str, Any],
    *,
    window: str,
    poll_s: float,
    key: str | int | None,
) -> Ref[list[Answer | CallFailed]]:
    """As ``LLM.batch``."""
    if (messages is None) == (prompts is None):
        raise TypeError("give a list of chats, or prompt=[...] of plain prompts, and not both")
    if isinstance(messages, str) or isinstance(prompts, str):
        raise TypeError(f"llm.batch({messages or prompts!r}) would ask each letter: give a list of texts")
    if not isinstance(window, str):
        raise TypeError(f"window={window!r} must be text, as '24h'")
    check_number("poll_s", poll_s)
    check_findable(params.get("response_format"))
    questions = [Question.of(chat, None, params) for chat in messages or ()]
    questions += [Question.of(None, text, params) for text in prompts or ()]
    if not 1 <= len(questions) <= BATCH_MAX:
        raise ValueError(f"{len(questions)} calls: a batch has 1 to {BATCH_MAX:,}")
    hand_in, fetch = submitted, results
    if key is not None:
        hand_in, fetch = submitted.options(key=key), results.options(key=key)
    return fetch.submit(llm, questions, hand_in.submit(llm, questions, window), poll_s)


@paid_task(name="batch", version="1")
async def submitted(llm: Model, questions: Sequence[Question], window: str) -> Submitted:
    """Hand the calls in, once."""
    mark, service = endpoint.key_of(idempotency_key()), _Service(llm.how)
    found = await service.find(mark) if may_be_paid_twice() else None
    if found is None:
        file = await service.upload(_lines(llm.model, questions, mark))
        path = _path(questions)
        wanted = {"input_file_id": file, "endpoint": path, "completion_window": window, "metadata": {MARK: mark}}
        await dispatching()
        found = await service.create(wanted, mark)
    tell_bill(Bill())  # that of its results is the batch's
    return Submitted(_id_of(found), mark)


@paid_task(name="batch-results", version="1")
async def results(
    llm: Model, questions: Sequence[Question], batch: Submitted, poll_s: float
) -> list[Answer | CallFailed]:
    """Wait for its end, and fetch what came of it; in the order of the questions."""
    service, attempt = _Service(llm.how), current_attempt()
    assert attempt is not None
    state = await service.ask(f"/batches/{batch.id}")
    while state.get("status") in _OPEN:
        await asyncio.sleep(poll_s)
        state = await service.ask(f"/batches/{batch.id}")
    lines: dict[str, Json] = {}
    for name in ("output_file_id", "error_file_id"):
        if state.get(name):
            lines |= {line["custom_id"]: line for line in await service.lines(str(state[name]))}
    if not lines:
        raise _failed(llm.how, batch, state)
    found = [
        _result(llm.how, question, lines.get(f"{batch.mark}/{number}"), batch, state)
        for number, question in enumerate(questions)
    ]
    bill = sum((bill_of(answer) for answer in found if isinstance(answer, Answer)), Bill())
    tell_bill(replace(bill, labels=own_labels(llm)))
    return found


def _lines(model: str, questions: Sequence[Question], mark: str) -> bytes:
    lines = (
        {"custom_id": f"{mark}/{number}", "method": "POST", "url": _path(questions), "body": question.body(model)}
        for number, question in enumerate(questions)
    )
    return b"\n".join(map(endpoint.body_of, lines)) + b"\n"


def _path(questions: Sequence[Question]) -> str:
    return "/v1/completions" if questions[0].messages is None else "/v1/chat/completions"


def _result(how: How, question: Question, line: Json | None, batch: Submitted, state: Json) -> Answer | CallFailed:
    where = f"{how.endpoint}/batches/{batch.id}"
    if line is None:
        return _named(Unanswered(f"{where}: there is no answer to this one; the batch is {state.get('status')}"), None)
    response = mapping(line.get("response"))
    status, body = response.get("status_code"), response.get("body")
    if status != 200:
        text = json.dumps(line.get("error") or body or {})
        return failed_with(status if isinstance(status, int) else 500, {}, text).error(where, 1, maybe_billed=False)
    try:
        reading = whole(body)
    except Unreadable as error:
        return _named(Unanswered(f"{where}: an answer cannot be read: {error}"), 200)
    return answer_of(how, question, reading)


def _failed(how: How, batch: Submitted, state: Json) -> CallFailed:
    """Of a batch that has no results at all."""
    said = "; ".join(str(each.get("message")) for each in _objects(mapping(state.get("errors")).get("data")))
    where, why = f"{how.endpoint}/batches/{batch.id}", said or state.get("errors") or "it does not say why"
    return _named(CallRefused(f"{where} has no results, it is {state.get('status')}: {why}"), None)


def _named(error: CallFailed, status: int | None) -> CallFailed:
    error.status = status
    return error


class _Service:
    """An endpoint's batches and files."""

    def __init__(self, how: How) -> None:
        self._how = how

    async def find(self, mark: str) -> Json | None:
        """The batch that has this mark."""
        after = ""
        while True:
            page = await self.ask(f"/batches?limit=100{after}")
            batches = _objects(page.get("data"))
            for batch in batches:
                if mapping(batch.get("metadata")).get(MARK) == mark:
                    return batch
            if not page.get("has_more") or not batches:
                return None
            after = f"&after={batches[-1].get('id')}"

    async def create(self, wanted: Json, mark: str) -> Json:
        """A batch; where a try was lost on its way, it is looked for first."""
        url, retries = f"{self._how.endpoint}/batches", Retries(self._how, f"{self._how.endpoint}/batches")

        async def once() -> Json:
            found = await self.find(mark) if retries.lost else None
            found = found or await self._once("POST", url, wanted, mark)
            _id_of(found)
            return found

        return await retries.answered(once)

    async def upload(self, lines: bytes) -> str:
        """A file of them; its id."""

        def form() -> aiohttp.FormData:
            form = aiohttp.FormData()
            form.add_field("purpose", "batch")
            form.add_field("file", lines, filename="calls.jsonl", content_type="application/jsonl")
            return form

        url = f"{self._how.endpoint}/files"
        headers = {name: value for name, value in self._how.headers().items() if name != "Content-Type"}

        async def once() -> str:
            return _id_of(_object(await endpoint.requested("POST", url, headers, self._how.timeout_s, form())))

        return await Retries(self._how, url).answered(once)

    async def ask(self, path: str) -> Json:
        """How something is."""
        url = self._how.endpoint + path
        return await Retries(self._how, url).answered(lambda: self._once("GET", url))

    async def _once(self, method: str, url: str, wanted: Json | None = None, key: str = "") -> Json:
        headers = self._how.headers() | (endpoint.key_header(key) if key else {})
        body = None if wanted is None else endpoint.body_of(wanted)
        return _object(await endpoint.requested(method, url, headers, self._how.timeout_s, body))

    async def lines(self, file: str) -> list[Json]:
        """Of a file."""
        url = f"{self._how.endpoint}/files/{file}/content"
        said = await Retries(self._how, url).answered(
            lambda: endpoint.requested("GET", url, self._how.headers(), self._how.timeout_s)
        )
        return list(_parsed(said))


def _parsed(said: bytes) -> Iterator[Json]:
    """Its lines; one that cannot be read leaves the others as they are."""
    for line in said.splitlines():
        if not line.strip():
            continue
        try:
            found = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError) as error:
            logger.warning("a line of a batch's results cannot be read, and whose it is nobody knows: %s", error)
            continue
        if isinstance(mapping(found).get("custom_id"), str):
            yield found


def _object(said: bytes) -> Json:
    try:
        found = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise Failed(f"gave an answer that cannot be read: {error}", status=200, sent=True) from error
    if not isinstance(found, dict):
        raise Failed("gave an answer that cannot be read", status=200, sent=True)
    return found


def _objects(found: object) -> list[Json]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _id_of(made: Json) -> str:
    """Of what was made; another try would make one more, and say no more of it."""
    if not isinstance(made.get("id"), str | int):
        raise Failed("gave an answer that names no id", status=200, body=str(made)[:EXCERPT], again=False, sent=True)
    return str(made["id"])
