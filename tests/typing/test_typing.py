"""The public API as mypy and pyright see it: exact where it is used rightly, an error where it is not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = ("planning.py", "user.py", "votes.py", "wrong.py")


def test_mypy_infers_what_a_user_would_write_and_refuses_each_wrong_use(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), *FILES]
    configuration = tmp_path / "mypy.ini"
    skipped = "[mypy-torch.*,transformers.*,triton.*,matplotlib.*,pandas.*]\nfollow_imports = skip\n"
    configuration.write_text(f"[mypy]\nfollow_imports = silent\n{skipped}")
    done = run([*command, "--config-file", str(configuration)])
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_infers_the_same(tmp_path: Path) -> None:
    found = pyright(tmp_path, FILES)
    assert not found, "\n".join(found)


def test_pyright_refuses_a_ref_as_a_condition(tmp_path: Path) -> None:
    (tmp_path / "condition.py").write_text(
        "from exoflow import Ref\ndef f(r: Ref[int]) -> None:\n    if r:\n        pass\n"
    )
    assert any("bool" in problem for problem in pyright(tmp_path, [str(tmp_path / "condition.py")]))


@pytest.mark.big
def test_the_checkers_do_look_at_each_line(tmp_path: Path) -> None:
    wrong = {3: "def f(x: int) -> str: return 1", 4: "f('x')", 5: "a: int = f(2)"}
    for line, instead in wrong.items():
        lines = ["from exoflow import task", "@task", "def f(x: int) -> str: return ''", "f(1)", "a: str = f(2)"]
        lines[line - 1] = instead
        (tmp_path / f"wrong_{line}.py").write_text("\n".join(lines) + "\n")
    files = [str(tmp_path / f"wrong_{line}.py") for line in wrong]
    done = run([sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), *files])
    found = re.findall(r"wrong_(\d)\.py:(\d): error", done.stdout)
    assert sorted(found) == [("3", "3"), ("4", "4"), ("5", "5")], done.stdout + done.stderr


def pyright(folder: Path, files: tuple[str, ...] | list[str]) -> list[str]:
    """What pyright has to say, needless ignores included."""
    program = Path(sys.executable).with_name("pyright")
    found = str(program) if program.exists() else shutil.which("pyright")
    if found is None:
        pytest.skip("pyright is not installed")
    settings = {
        "include": [str(HERE / file) for file in files],
        "extraPaths": [str(ROOT), str(HERE)],
        "typeCheckingMode": "standard",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "reportUnusedExpression": "none",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    done = run([found, "--outputjson", "--pythonpath", sys.executable, "--project", str(folder)])
    if not done.stdout.startswith("{"):
        pytest.skip(f"pyright does not run here: {done.stdout}{done.stderr}")
    problems = json.loads(done.stdout)["generalDiagnostics"]
    return [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in problems
        if each["severity"] == "error"
    ]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MYPYPATH": f"{ROOT}{os.pathsep}{HERE}", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=100, check=False)
