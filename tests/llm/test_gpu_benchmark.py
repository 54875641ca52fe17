"""benchmarks/gpu.py where there is no GPU: that it runs, not what it measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def measured(tmp_path: Path, *words: str) -> dict[str, list[dict[str, object]]]:
    path = tmp_path / "figures.json"
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--stop", "--json", str(path), *words]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "could not be loaded" not in done.stderr
    results: dict[str, list[dict[str, object]]] = json.loads(path.read_text())["results"]
    return results


def test_parity_and_kernels_are_measured_on_a_tiny_model(tmp_path: Path) -> None:
    results = measured(tmp_path, "--only", "parity,kernels,decode")
    assert all(row["good"] for row in results["parity"])
    assert {str(row["what"]).split()[0] for row in results["kernels"]} == {"K1", "K2", "K3b", "K4"}
    assert {str(row["what"]).split()[0] for row in results["decode"]} == {"D1", "D2", "D3"}


@pytest.mark.big
@pytest.mark.timeout(600)
def test_everything_is_measured_on_a_tiny_model(tmp_path: Path) -> None:
    results = measured(tmp_path)
    assert len(results) == 11
    assert all(results.values())
