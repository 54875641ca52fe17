"""For tests: of flows, with time skipped; and of what implements a protocol, by the suites in the modules here."""

from exoflow.testing.skipping import SkippedTime, skipping_time

__all__ = ["SkippedTime", "skipping_time"]
