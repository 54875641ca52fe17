"""The real kernel and driver in a world that is a pure function of one seed."""

from exoflow.testing.simulation.oracle import Violation
from exoflow.testing.simulation.world import Report, simulate

__all__ = ["Report", "Violation", "simulate"]
