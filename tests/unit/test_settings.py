"""Which store and executor are used: what is said nearest counts."""

from pathlib import Path

import pytest

import exoflow
from exoflow import settings
from exoflow.executors import LocalExecutor


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and nothing configured."""
    folder = tmp_path / "project" / "sub"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(settings, "_configured", {})
    monkeypatch.delenv("EXOFLOW_STORE", raising=False)
    monkeypatch.delenv("EXOFLOW_EXECUTOR", raising=False)
    settings._project_at.cache_clear()
    return folder


def test_the_default_store_lies_here() -> None:
    assert settings.store_of().url == settings.open_store("./.exoflow").url
    assert settings.store_of().url.endswith("/project/sub/.exoflow")
    assert settings.executor_of() == "local"


def test_the_nearer_word_counts(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere.parent / "pyproject.toml").write_text("[tool.exoflow]\nstore = 'runs'\nexecutor = 'processes:2'\n")
    (elsewhere / "pyproject.toml").write_text("[tool.other]\nstore = 'no'\n")
    assert settings.store_of().url.endswith("/project/runs")
    assert settings.executor_of() == "processes:2"
    monkeypatch.setenv("EXOFLOW_STORE", "memory://environment")
    monkeypatch.setenv("EXOFLOW_EXECUTOR", "local:3")
    assert settings.store_of().url == "memory://environment"
    assert settings.executor_of() == "local:3"
    exoflow.configure(store="memory://configured")
    exoflow.configure(executor="local:2")
    assert settings.store_of().url == "memory://configured"
    assert settings.executor_of() == "local:2"
    assert settings.store_of("memory://said").url == "memory://said"
    assert settings.executor_of("local:1") == "local:1"


@pytest.mark.parametrize("table", ["stor = 'x'", "store = 3", "executor = ''"])
def test_a_wrong_word_in_the_project_file_is_refused(table: str, elsewhere: Path) -> None:
    (elsewhere / "pyproject.toml").write_text(f"[tool.exoflow]\n{table}\n")
    with pytest.raises(ValueError, match=r"pyproject.toml: \[tool.exoflow\] may say"):
        settings.store_of()


def test_what_cannot_be_used_is_refused_where_it_is_configured() -> None:
    with pytest.raises(exoflow.UnsupportedStore):
        exoflow.configure(store="gs://bucket")
    with pytest.raises(exoflow.ExecutorError, match="there is no executor 'threads'"):
        exoflow.configure(executor="threads")
    with pytest.raises(TypeError, match="must be a name"):
        exoflow.configure(executor=3)  # type: ignore[arg-type]
    assert settings.executor_of() == "local"


def test_a_store_has_one_of_each_executor_and_reads_for_one_from_another() -> None:
    store = settings.open_store("memory://executors")
    executors = settings.executors_of(store)
    assert settings.executors_of(store) is executors
    assert executors("local") is executors("local")
    assert executors("local:1") is not executors("local")
    own = LocalExecutor(1)
    assert executors(own) is own
    executors.close()
    own.close()
    assert executors("local") is executors("local")
    executors.close()
