"""Fair scheduling of LLM requests. The names exported here are the pure part, of use without a flow.

Rooms:
    policy                          what waits, and the protocol of who is next                       pure
    vtc, bands                      the Virtual Token Counter; strict priority above it               pure
    counters, nodes, line           its counters in a tree; the requests of one client                pure
    charges, costs                  what a request was charged so far; what tokens cost               pure
    reserving, baselines            VTC with reservations; FCFS, LCF, RPM, DRR                        pure
    scheduler, settings, tenants    ``FairScheduler``, as it is written down
    dispatch                        what it decides: whose turn, who is held, who is refused          pure
    clients, ledger, meters         accounts, budgets and figures of who is charged                   pure
    asks, holding, refusals         a call that wants its turn; held by a budget; why it is refused   pure
    limits                          requests and tokens in a minute                                   pure
    turns, pace                     both live, shared by threads and loops: locks, timers, futures
    recorded                        the task by which a flow's ``update`` is recorded
    simulator, batch_cost, result   a simulated GPU, and what it gave whom                            pure
    arrivals, plots                 workloads for it; its results drawn
    prometheus                      figures for Prometheus
"""

from exoflow.llm.fair.arrivals import steady
from exoflow.llm.fair.baselines import DRR, FCFS, LCF, RPM
from exoflow.llm.fair.batch_cost import BatchCost
from exoflow.llm.fair.charges import Within
from exoflow.llm.fair.costs import Cost, Linear
from exoflow.llm.fair.policy import Policy, Waiting
from exoflow.llm.fair.result import Result, Served
from exoflow.llm.fair.simulator import Arrival, simulate
from exoflow.llm.fair.vtc import VTC

__all__ = [
    "DRR", "FCFS", "LCF", "RPM", "VTC", "Arrival", "BatchCost", "Cost", "Linear", "Policy", "Result", "Served",
    "Waiting", "Within", "simulate", "steady",
]  # fmt: skip
