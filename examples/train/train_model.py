"""The model and its trainer: a small network that says how likely a flight is to leave late."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from train_data import FEATURES, Shard

_BATCH = 512


@dataclass(frozen=True, slots=True)
class Score:
    """How a model does on flights that it has not seen."""

    flights: int
    log_loss: float
    """Mean, in nats. Whoever always says the base rate gets the entropy of it."""
    auc: float
    """The chance that of a late flight and one in time, drawn by chance, the late one is ranked as likelier."""


class Network:
    """Two hidden layers, Adam. The same seed and shards in the same order give the same bits, on one thread."""

    def __init__(self, hidden: int, rate: float, seed: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=rate)
        self.seed = seed
        self.steps = 0

    def fit(self, shard: Shard) -> float:
        """One pass over a shard, shuffled; the mean loss."""
        torch.set_num_threads(1)
        features, late = torch.from_numpy(shard.features.copy()), torch.from_numpy(shard.late.copy())
        order = torch.randperm(len(late), generator=torch.Generator().manual_seed(self.seed + self.steps))
        total = 0.0
        for rows in order.split(_BATCH):
            loss = nn.functional.binary_cross_entropy_with_logits(self.model(features[rows]).squeeze(1), late[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach()) * len(rows)
            self.steps += 1
        return total / len(late)

    def score(self, shard: Shard) -> Score:
        """How it does on a shard."""
        with torch.no_grad():
            logits = self.model(torch.from_numpy(shard.features.copy())).squeeze(1)
            late = torch.from_numpy(shard.late.copy())
            loss = nn.functional.binary_cross_entropy_with_logits(logits, late)
        ranks = np.empty(len(late))
        ranks[np.argsort(logits.numpy(), kind="stable")] = np.arange(1, len(late) + 1)
        positive = int(shard.late.sum())
        wins = ranks[shard.late == 1].sum() - positive * (positive + 1) / 2
        return Score(len(late), round(float(loss), 4), round(float(wins / (positive * (len(late) - positive))), 4))

    def weights(self) -> bytes:
        """The parameters, as ``torch.load`` reads them."""
        file = io.BytesIO()
        torch.save(self.model.state_dict(), file)
        return file.getvalue()
