"""The Triton kernels without a GPU: run by the interpreter, and compiled for one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is for Linux"),
    pytest.mark.timeout(600),  # 20 s of one core, which others may want too
]
HERE = Path(__file__).parent


def run(*words: str, **variables: str) -> None:
    """Triton reads its variables when it is imported: each way to run it needs a process of its own."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), **variables}
    done = subprocess.run([sys.executable, *words], env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]


def test_kernels_agree_with_the_reference_under_the_interpreter() -> None:
    run(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / "kernels_interpreted.py"), TRITON_INTERPRET="1"
    )


@pytest.mark.big
def test_kernels_compile_for_an_h100_and_read_16_bytes_at_a_time(tmp_path: Path) -> None:
    run(str(HERE / "kernels_compiled.py"), "llama-8b", "smollm2", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
