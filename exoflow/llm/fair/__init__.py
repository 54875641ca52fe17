"""Fair scheduling of LLM requests."""

from exoflow.llm.fair.accounts import Within
from exoflow.llm.fair.arrivals import steady
from exoflow.llm.fair.baselines import DRR, FCFS, LCF, RPM
from exoflow.llm.fair.batch_cost import BatchCost
from exoflow.llm.fair.costs import Cost, Linear
from exoflow.llm.fair.policy import Policy, Waiting
from exoflow.llm.fair.result import Result, Served
from exoflow.llm.fair.simulator import Arrival, simulate
from exoflow.llm.fair.vtc import VTC

__all__ = [
    "DRR", "FCFS", "LCF", "RPM", "VTC", "Arrival", "BatchCost", "Cost", "Linear", "Policy", "Result", "Served",
    "Waiting", "Within", "simulate", "steady",
]  # fmt: skip
