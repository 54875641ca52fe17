"""Train the example's model in each checkpoint mode, and with each accident."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from cluster_workloads import MODES, PLACES
from systems import Bench, Broken

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "train"
sys.path.insert(0, str(EXAMPLE))

from train_kills import Told, train  # noqa: E402  # it lies with the example

Numbers = dict[str, float]


def trainings(bench: Bench, engine: str, epochs: int) -> Iterator[tuple[str, Numbers | Broken]]:
    """One turn: each mode and each accident, and its figures or why there are none."""
    os.environ["PYTHONPATH"] = str(HERE.parent)  # the programs find this checkout before an installed package
    os.environ["RAY_ADDRESS"] = "local"  # a cluster of their own, whatever else runs on the machine
    words = ["--epochs", str(epochs), "--prepare-on", engine, "--train-on", engine, "--checkpoint"]
    calm: Told | None = None
    for mode in MODES:
        try:
            told, stored_mb = trained(bench, [*words, mode], None)
        except Broken as why:
            yield mode, why
            continue
        calm = told if mode == MODES[0] else calm
        yield mode, {"s": told.seconds, "stored_mb": stored_mb}
    for place in PLACES:
        try:
            if calm is None:
                raise Broken("it was not to be had without accidents")
            told, _ = trained(bench, [*words, MODES[0]], place)
        except Broken as why:
            yield place, why
            continue
        again = sum(told.bodies.values()) - sum(calm.bodies.values())
        yield place, {"s": told.seconds, "recovery_s": told.seconds - calm.seconds, "again": again, "lives": told.lives}


def trained(bench: Bench, words: list[str], at: str | None) -> tuple[Told, float]:
    """What became of it, and the megabytes that its store has at the end.

    Raises:
        Broken: it did not get to its end.
    """
    folder = bench.fresh_directory()
    try:
        told = train(folder, words, at)
        return told, sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file()) / 1e6
    except SystemExit as why:
        errors = (folder / "errors.txt").read_text().strip().splitlines()
        raise Broken(f"{str(why).partition(': see')[0]}: {errors[-1] if errors else 'it said nothing'}") from None
    except Exception as why:  # a bug of the accident's, or no answer in time: the run goes on without it
        raise Broken(f"{type(why).__name__}: {why}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
