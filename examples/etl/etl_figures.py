"""What the ETL computes, without ExoFlow: plain functions from tables to figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

LATE_MIN = 15
"""Minutes behind schedule from which the FAA counts a flight as late."""


def disagreeing(flights: pd.DataFrame, end: str) -> pd.Series[bool]:
    """Whose delay at this end (``dep`` or ``arr``) is not what the clock times (517 for 5:17) say, midnight apart."""
    real, planned, delay = flights[f"{end}_time"], flights[f"sched_{end}_time"], flights[f"{end}_delay"]
    minutes = (real // 100 - planned // 100) * 60 + real % 100 - planned % 100
    return delay.notna() & ((minutes - delay) % (24 * 60) != 0)


def delay_figures(flights: pd.DataFrame, measure: str, weights: np.ndarray) -> dict[str, float]:
    """Late flights, median and 90th percentile, with the 2.5th and 97.5th percentile of each over all resamples.

    Args:
        flights: ``day`` in [0, days), and the delay in minutes.
        weights: ``[resamples, days]``: how often each day was drawn.
    """
    least, most = -60, 6 * 60  # what lies beyond counts as the bound: no figure below looks there
    width = most - least + 1
    cells = flights["day"] * width + (flights[measure].clip(least, most).astype(int) - least)
    counts = np.bincount(cells, minlength=weights.shape[1] * width).reshape(-1, width)

    def figures(histograms: np.ndarray) -> dict[str, np.ndarray]:
        upto = histograms.cumsum(axis=1)
        total = upto[:, -1:]
        return {
            "late_percent": 100 * (1 - upto[:, LATE_MIN - 1 - least] / total[:, 0]),
            "median_min": (upto >= 0.5 * total).argmax(axis=1) + least,
            "p90_min": (upto >= 0.9 * total).argmax(axis=1) + least,
        }

    resampled = weights.astype(np.float32) @ counts.astype(np.float32)  # exact: whole numbers below 2**24
    spread = figures(resampled[resampled.sum(axis=1) > 0])
    found: dict[str, float] = {}
    for name, observed in figures(counts.sum(axis=0, keepdims=True)).items():
        low, high = np.quantile(spread[name], [0.025, 0.975])
        found |= {name: float(observed[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """The same table makes the same bytes: no pandas metadata, which names versions."""
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(arrow, path, compression="zstd")
