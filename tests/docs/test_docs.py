"""The documentation runs.

In README.md and docs/**/*.md each page is tried in a folder of its own, block by block:

* ``python title="x.py"`` is written to the file ``x.py``;
* ``console``: each line after ``$ `` is run; lines below it are its whole standard output (``...``: any lines), and
  ``exit="1"`` is the status of the last command, 0 if not given;
* ``python``: all blocks without a title are one program, run last;
* ``<!-- needs: ray, dask -->`` in its first line names modules without which the page is skipped;
* ``py reason="why"`` and ``console reason="why"`` are shown only. Without a reason they are an error.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<options>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
OPTION = re.compile(r'(\w+)="([^"]*)"')
TIME_LIMIT_S = 100


@dataclass(frozen=True)
class Block:
    language: str
    options: dict[str, str]
    body: str
    line: int

    @property
    def shown_only(self) -> bool:
        return "reason" in self.options


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        body = "".join(line.removeprefix(match["indent"]) for line in match["body"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("body")) + 1
        found.append(Block(match["language"], dict(OPTION.findall(match["options"])), body, line))
    return found


def needed(page: Path) -> list[str]:
    found = re.match(r"<!-- needs: (.*) -->", page.read_text())
    return found[1].split(", ") if found else []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_the_page_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for module in needed(page):
        pytest.importorskip(module)
    if page.stem == "object-stores":
        request.getfixturevalue("s3_environment")  # there is a bucket named `bucket`
    program: list[Block] = []
    for block in blocks(page):
        place = f"{page.name}:{block.line}"
        if block.language == "py":
            assert block.shown_only, f'{place}: a block that does not run says reason="why"'
        elif block.language == "console" and not block.shown_only:
            type_in(block, tmp_path, place)
        elif block.language == "python" and (title := block.options.get("title")):
            (tmp_path / title).write_text(block.body)
        elif block.language == "python":
            program.append(block)
    if program:
        name = f"{page.stem}_page.py"  # not dask.py, which would be imported in place of dask
        (tmp_path / name).write_text(joined(program))
        output, status = run(f"{sys.executable} -W error {name}", tmp_path)
        assert status == 0, output


def test_the_first_flow_follows_the_advice_of_explain(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(
        joined([block for block in blocks(ROOT / "README.md") if block.language == "python"])
    )
    output, status = run("exoflow explain first.py:estimate", tmp_path)
    assert status == 0
    assert "publish" in output
    assert "careful" not in output


def joined(program: list[Block]) -> str:
    """One source in which every line has the number that it has on the page, so that a traceback points there."""
    text = ""
    for block in program:
        text += "\n" * (block.line - 1 - text.count("\n")) + block.body
    return text


def type_in(block: Block, folder: Path, place: str) -> None:
    """Type the commands, one after another, and compare what they print where the page shows it."""
    commands: list[tuple[str, list[str]]] = []
    for line in block.body.splitlines():
        if line.startswith("$ "):
            commands.append((line.removeprefix("$ "), []))
        else:
            commands[-1][1].append(line)
    for n, (command, expected) in enumerate(commands, start=1):
        output, status = run(command, folder)
        due = int(block.options.get("exit", "0")) if n == len(commands) else 0
        assert status == due, f"{place}: {command} ended with {status}:\n{output}"
        if expected:
            shown = "\n".join(".*" if line.strip() == "..." else re.escape(line) for line in expected)
            printed = output.partition("\n-- stderr --\n")[0].rstrip("\n")
            assert re.fullmatch(shown, printed, re.DOTALL), f"{place}: {command} printed\n{output}\nand not\n{shown}"


def run(command: str, folder: Path) -> tuple[str, int]:
    """What the shell command printed, and its status; 137 if it was killed with SIGKILL."""
    # Not the variables of this process that ExoFlow itself looks at; the tools beside the interpreter come first.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EXOFLOW_")}
    environment["RAY_ADDRESS"] = "local"  # a cluster of its own, whatever else runs on the machine
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
    done = subprocess.run(
        ["bash", "-c", f"{command}\nexit $?"],  # two commands: bash then stays and turns a signal into a status
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    return f"{done.stdout}\n-- stderr --\n{done.stderr}", done.returncode


def test_a_block_keeps_its_line_numbers() -> None:
    page = ROOT / "README.md"
    program = [block for block in blocks(page) if block.language == "python"]
    lines, shown = joined(program).splitlines(), page.read_text().splitlines()
    assert all(line in ("", shown[n]) for n, line in enumerate(lines))


def test_the_test_command_of_the_readme_is_the_one_that_ci_runs() -> None:
    command = next(line for line in (ROOT / "README.md").read_text().splitlines() if "-m pytest" in line)
    assert f"\n    {command}\n" in (ROOT / ".ci" / "run").read_text()


def test_every_page_stands_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        name = str(page.relative_to(ROOT / "docs"))
        assert name in navigation, f"{name} is missing in mkdocs.yml"
