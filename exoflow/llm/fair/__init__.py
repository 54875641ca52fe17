"""Fair scheduling of LLM requests."""

from exoflow.llm.fair.baselines import DRR, FCFS, LCF, RPM
from exoflow.llm.fair.costs import Cost, Linear
from exoflow.llm.fair.policy import Policy, Waiting
from exoflow.llm.fair.vtc import VTC

__all__ = ["DRR", "FCFS", "LCF", "RPM", "VTC", "Cost", "Linear", "Policy", "Waiting"]
