"""Measure the multi-LoRA engine on a GPU, each figure beside its physical bound.

    python benchmarks/gpu.py --only parity,kernels            some measurements, a table each; a few minutes
    python benchmarks/gpu.py --only serving --json FILE       keeps the figures as well
    python benchmarks/gpu.py --device cpu --tiny              a tiny model on a CPU: that the script works, no figures

Weights are random: right for speed, and they say nothing of quality. Everything runs in this process, without a web
server. See benchmarks/gpu/RESULTS.md for what was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_kernels import bandwidth, kernels, parity, tune
from gpu_peft import peft
from gpu_serving import deadlines, loading, serving, unified
from gpu_steps import decode
from gpu_world import Bench

MEASUREMENTS: dict[str, Callable[[Bench], list[dict[str, Any]]]] = {
    "parity": parity,  # before any speed
    "kernels": kernels,  # K1, K1b, K2, K3b, K4
    "tune": tune,
    "decode": decode,  # D1 to D4, C1
    "serving-s1": lambda bench: serving(bench, ["S1"]),
    "serving-s2": lambda bench: serving(bench, ["S2"]),
    "loading": loading,  # L1, L2
    "deadlines": deadlines,  # L3, L4
    "unified": unified,  # U1
    "peft": peft,  # P1 to P3
}


def main() -> int:
    words = parse()
    device = torch.device(words.device)
    bench = Bench(device, torch.float32 if device.type == "cpu" else torch.bfloat16, words.tiny)
    results: dict[str, Any] = {"device": describe(device), "torch": torch.__version__, "results": {}, "errors": {}}
    print(results["device"])
    results["results"]["copy"] = bandwidth(bench)
    table("copy", results["results"]["copy"])
    for name in words.only:
        begin = time.monotonic()
        try:
            rows = MEASUREMENTS[name](bench)
        except Exception as error:  # the others are still worth measuring
            results["errors"][name] = f"{type(error).__name__}: {error}"
            print(f"\n{name} failed: {results['errors'][name]}", file=sys.stderr)
            if words.stop:
                raise
            continue
        finally:
            bench.empty()
        results["results"][name] = rows
        table(f"{name} ({time.monotonic() - begin:.0f} s)", rows)
        if words.json:
            words.json.write_text(json.dumps(results, indent=1) + "\n")
    wrong = [row for row in results["results"].get("parity", []) if not row["good"]]
    return 1 if results["errors"] or wrong else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ",".join(MEASUREMENTS)
    parser.add_argument("--only", default=names, help=f"some of {names}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: that everything runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stop", action="store_true", help="raise at the first measurement that fails")
    words = parser.parse_args()
    words.only = words.only.split(",")
    unknown = set(words.only) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: there are {names}")
    return words


def describe(device: torch.device) -> str:
    return "a CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows of one kind under one head."""
    print(f"\n## {title}")
    head: list[str] = []
    for row in rows:
        if list(row) != head:
            head = list(row)
            print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        print(
            "| " + " | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()) + " |", flush=True
        )


if __name__ == "__main__":
    sys.exit(main())
