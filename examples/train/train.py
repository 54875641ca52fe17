"""Who leaves New York late? A model of 336,776 flights: prepared on one engine, trained on another, published here.

    pip install 'exoflow[train,ray,dask]'
    python train.py OUTPUT --run-id late-2013 --prepare-on dask --train-on ray

Kill what you like: a worker, the whole cluster, this program; give the same command again, and it goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import exoflow
from exoflow import flow, task
from train_data import Shard, data_folder, features_of, jittered, read_csv, sha256_of
from train_model import Network, Score

LEARN, EXAMINE = range(1, 11), range(11, 13)
"""Months. The model is examined on flights later than any that it has seen."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train, and where."""

    epochs: int = 3
    copies: int = 2
    hidden: int = 64
    rate: float = 0.001
    checkpoint: str = "auto"
    """Of the data and of the training, as ``exoflow.task`` has it: one word for the whole pipeline."""
    prepare_on: str = "local"
    train_on: str = "local"
    log: str | None = None
    """A file to which each body adds a line when it begins: who counts them sees what was run again."""

    def note(self, body: str, what: object = "") -> None:
        print(body, what, file=sys.stderr, flush=True)
        if self.log is not None:
            file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(file, f"{body} {what} {os.getpid()}\n".encode())
            os.close(file)


MEANINGS = {
    "epochs": "how often the network sees all months",
    "copies": "draws of its late flights, with noise, that each month gets",
    "hidden": "width of the network's layers",
    "rate": "of learning",
    "checkpoint": "how data and training are saved: sync, async, never, or auto, where it is worth it",
    "prepare_on": "where data is prepared: local, processes, ray, dask, or a cluster's address",
    "train_on": "where the network is trained, likewise",
    "log": "a file that gets a line for each body that begins",
}


# Nondeterministic: it looks at what is installed. All the rest stands on what it saw.
@task
def find_data(plan: Plan) -> Mapping[str, str]:
    plan.note("find")
    return sha256_of(data_folder())


@task(deterministic=True)
def read(plan: Plan, sha256: Mapping[str, str], name: str) -> pd.DataFrame:
    plan.note("read", name)
    return read_csv(data_folder(), name, sha256[name])


@task(deterministic=True)
def prepare(plan: Plan, flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame, month: int) -> Shard:
    plan.note("prepare", month)
    return features_of(flights, weather, planes, month)


# Nondeterministic: each attempt draws others. What was trained on a draw that is lost is retired, and trained again.
@task
def augment(plan: Plan, shard: Shard, month: int) -> Shard:
    plan.note("augment", month)
    return jittered(shard, plan.copies, np.random.default_rng())


@exoflow.actor(snapshot_every=5)
class Trainer:
    """A network between the calls that train it."""

    def __init__(self, plan: Plan) -> None:
        plan.note("create")
        self.plan = plan
        self.network = Network(plan.hidden, plan.rate, seed=2013)

    @task(deterministic=True)
    def fit(self, shard: Shard, epoch: int, month: int) -> float:
        self.plan.note("fit", f"{epoch}/{month}")
        return self.network.fit(shard)

    @task(deterministic=True)
    def score(self, shard: Shard) -> Score:
        return self.network.score(shard)

    @task(deterministic=True)
    def weights(self) -> bytes:
        return self.network.weights()


# Idempotent: the same release under the same key. It starts when no fault can change the weights any more.
@task(effect="idempotent")
def publish(output: str, weights: bytes, losses: list[float], scores: list[Score]) -> str:
    name = hashlib.sha256(exoflow.idempotency_key().encode()).hexdigest()[:12]
    folder = Path(output, name)
    folder.mkdir(parents=True, exist_ok=True)
    report = {"losses": losses, "scores": [asdict(score) for score in scores]}
    for file, data in (("model.pt", weights), ("report.json", json.dumps(report, indent=2).encode())):
        fresh = folder / f".{file}-{os.getpid()}"
        fresh.write_bytes(data)
        fresh.replace(folder / file)
    return name


@flow
def late(output: str, plan: Plan) -> dict[str, object]:
    there = {"executor": plan.prepare_on, "checkpoint": plan.checkpoint}
    sha256 = find_data.submit(plan)
    tables = [
        read.options(**there).submit(plan, sha256, name) for name in ("flights.csv.zip", "weather.csv", "planes.csv")
    ]
    shards = {month: prepare.options(**there).submit(plan, *tables, month) for month in (*LEARN, *EXAMINE)}
    drawn = {month: augment.options(**there).submit(plan, shards[month], month) for month in LEARN}

    trainer = Trainer(plan)
    fit = trainer.fit.options(checkpoint=plan.checkpoint)
    losses = [fit.submit(drawn[month], epoch, month) for epoch in range(plan.epochs) for month in LEARN]
    scores = [trainer.score.submit(shards[month]) for month in EXAMINE]
    release = publish(output, trainer.weights.submit(), losses, scores)
    return {"release": release, "loss": losses[-1].result(), "scores": [asdict(score.result()) for score in scores]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn which flights leave New York late, and publish the model.")
    parser.add_argument("output", help="folder of the models")
    parser.add_argument("--run-id", help="give the same id again to go on with a run that was broken off")
    parser.add_argument("--store", help="where ExoFlow keeps its journal: a folder, or s3://bucket/prefix")
    for name, default in asdict(Plan()).items():
        kind = type(default) if default is not None else str
        told = f"{MEANINGS[name]} (%(default)s)" if default is not None else MEANINGS[name]
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=told)
    words = vars(parser.parse_args())
    output, run_id, store = words.pop("output"), words.pop("run_id"), words.pop("store")
    plan = Plan(**words)
    print(json.dumps(late.options(run_id=run_id, store=store, executor=plan.train_on)(output, plan), indent=2))


if __name__ == "__main__":
    main()
