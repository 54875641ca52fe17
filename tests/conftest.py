"""What all tests share: the profiles of hypothesis, and that none leaves its configuration to the next."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Deadlines measure the machine, not the code. A failure prints the blob that repeats it; chance is not taken away,
# so that a hundred runs see a hundred times as much.
settings.register_profile("ci", deadline=None, derandomize=False, print_blob=True)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=20)
settings.register_profile(
    "thorough",
    settings.get_profile("ci"),
    max_examples=5_000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def configured_for_itself() -> Iterator[None]:
    """What ``exoflow.configure`` set for one test is gone after it."""
    from exoflow import settings as ours

    before = dict(ours._configured)
    yield
    ours._configured.clear()
    ours._configured.update(before)  # type: ignore[typeddict-item]  # it was one
