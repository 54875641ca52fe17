"""What several of these files begin with."""

from collections.abc import Iterator

import pytest

import exoflow
from exoflow.testing import SkippedTime, skipping_time


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> None:
    """A store of the test's own is the default one."""
    exoflow.configure(store=f"memory://{request.node.name}")


@pytest.fixture
def clock() -> Iterator[SkippedTime]:
    """Time stands still, and is skipped."""
    with skipping_time() as clock:
        yield clock
