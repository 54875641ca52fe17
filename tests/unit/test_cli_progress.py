"""The line that says how far a run is."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future

import pytest

from exoflow.cli.progress import Progress
from exoflow.llm.durable import seats
from exoflow.llm.durable.spec import Setup


def test_it_says_which_model_is_loaded_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    open_one: Future[seats.Seat] = Future()
    open_one.set_exception(OSError())
    monkeypatch.setattr(seats, "_seats", {Setup("smollm2"): Future(), Setup("other"): open_one})
    found = Progress(7, 0, 0, Counter({"adapter": 1}), starting=tuple(seats.starting()))
    assert found.words() == "0 of 7 calls · adapter, loading smollm2"
