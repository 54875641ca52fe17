"""What is exported is documented, and what is documented exists."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import exoflow
from exoflow import errors, llm
from exoflow.llm import calls, fair, planning, voting

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def first_column(page: str) -> str:
    rows = [line for line in (REFERENCE / page).read_text().splitlines() if line.startswith("| `")]
    return "\n".join(re.split(r"(?<!\\)\|", row)[1] for row in rows)


def test_every_exported_name_stands_in_the_reference() -> None:
    text = "".join((REFERENCE / page).read_text() for page in ("python.md", "errors.md"))
    missing = [name for name in exoflow.__all__ if not re.search(rf"`@?(exoflow\.)?{name}\b", text)]
    assert not missing


def test_every_name_that_a_library_for_models_exports_stands_in_the_reference() -> None:
    text = (REFERENCE / "llm.md").read_text()
    for library in (llm, calls, fair, voting, planning):
        assert not [name for name in library.__all__ if not re.search(rf"`{name}\b", text)], library.__name__


def test_every_function_in_the_reference_is_exported() -> None:
    names = set(re.findall(r"`@?(\w+)\(", first_column("python.md"))) - {"t", "f"}
    assert names
    assert not sorted(name for name in names if not hasattr(exoflow, name))


def test_every_error_stands_in_the_reference_below_its_parent() -> None:
    text = (REFERENCE / "errors.md").read_text()
    for name, error in inspect.getmembers(errors, inspect.isclass):
        parent = error.__mro__[1].__name__
        named = f"| `{name}` | `{parent}` |" in text or f"| `{parent}` | " in text and f"`{name}`" in text
        assert named or name == "Interruption", f"{name}, below {parent}"


def test_every_command_in_the_reference_exists() -> None:
    commands = re.findall(r"`exoflow (\w+)", first_column("command-line.md"))
    assert commands
    program = "from exoflow.cli import main; main()"
    command_line = [sys.executable, "-c", program, "--help"]
    told = subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=True).stdout
    assert not [command for command in commands if not re.search(rf"\b{command}\b", told)]


def test_every_command_that_a_message_or_a_page_tells_to_use_stands_in_the_reference() -> None:
    known = set(re.findall(r"`exoflow (\w+)", first_column("command-line.md"))) | {"llm"}
    root = REFERENCE.parents[1]
    texts = [*(root / "exoflow").rglob("*.py"), *(root / "docs").rglob("*.md"), root / "README.md"]
    told = {(path.name, word) for path in texts for word in re.findall(r"`exoflow ([a-z]\w*)", path.read_text())}
    assert not [(name, word) for name, word in told if word not in known and word != "import"]
