"""What all tests share: the profiles of hypothesis."""

import os

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
