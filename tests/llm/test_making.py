"""``exoflow llm make-adapters``."""

from __future__ import annotations

from pathlib import Path

import pytest
from llm_zoo import Zoo
from typer.testing import CliRunner

from exoflow.cli.app import app


def make(zoo: Zoo, directory: Path | str, *words: str) -> tuple[int, str]:
    given = ["llm", "make-adapters", str(directory), "--model", str(zoo.path), *words]
    done = CliRunner().invoke(app, given)
    return done.exit_code, done.stderr


def test_adapters_are_made_and_their_size_is_told_before(zoo: Zoo, tmp_path: Path) -> None:
    code, told = make(zoo, tmp_path / "new", "--count", "3", "--ranks", "1,2", "--attention")
    assert code == 0
    made = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in made] == ["adapter-0", "adapter-1", "adapter-2"]
    weights = sum((path / "adapter_model.safetensors").stat().st_size for path in made)
    assert "writing 3 adapters, 29 kB, to" in told
    assert 29_000 < weights < 40_000  # each has a header, too


def test_adapters_that_are_there_are_not_written_over_by_mistake(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "adapter-1").mkdir()
    code, told = make(zoo, tmp_path, "--count", "2")
    assert code == 2
    assert "adapter-1 is there already" in told
    assert not (tmp_path / "adapter-0").exists()
    assert make(zoo, tmp_path, "--count", "2", "--force")[0] == 0
    assert (tmp_path / "adapter-1" / "adapter_config.json").is_file()


def test_more_than_the_disk_has_room_for_is_refused_before_anything_is_written(zoo: Zoo, tmp_path: Path) -> None:
    code, told = make(zoo, tmp_path / "new" / "more", "--count", "1000", "--ranks", "100000000")
    assert code == 2
    assert "they take" in told
    assert "left: give less by --count or --ranks" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["/dev/null/x", "{tmp}/file"])
def test_a_place_that_is_none_is_one_clear_line(zoo: Zoo, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    code, told = make(zoo, place.format(tmp=tmp_path), "--count", "1")
    assert code == 2
    assert "cannot be written: Not a directory" in told
