"""The real kernel and driver in a world that is a pure function of one seed.

``program`` is what is run, ``bodies`` what its tasks do, ``workers`` how their attempts end, ``world`` what else
happens, from crash to crash; ``doubles`` stand for what the driver uses. ``oracle`` says whether that was one
failure-free execution. ``checked`` holds both forms of the kernel against each other; the ``zoo`` has broken ones.
"""

from exoflow.testing.simulation.oracle import Violation
from exoflow.testing.simulation.report import Report
from exoflow.testing.simulation.world import simulate

__all__ = ["Report", "Violation", "simulate"]
