"""A scheduler's figures for Prometheus. Imported where they are wanted: it needs prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from exoflow.llm.fair.scheduler import FairScheduler

_GAUGES = {
    "waiting": "Calls that wait for their turn.",
    "in_flight": "Calls in flight.",
    "wait_p95_s": "95 % of the last calls waited no longer for their turn.",
    "share": "Part of all service.",
    "counter": "Virtual time: service divided by weight, lifted on return.",
    "reserved_usd": "The most that calls in flight may cost.",
}
_COUNTERS = {
    "calls": "Calls that were settled.",
    "refused": "Calls refused for a budget, a limit or a deadline.",
    "service": "Tokens by the cost function.",
    "spent_tokens": "Tokens of prompts and answers.",
    "spent_usd": "Money spent.",
}
_NAMES = {"wait_p95_s": "wait_p95_seconds"}


class SchedulerCollector(Collector):
    """What a scheduler says of each tenant. Register it where your other metrics are."""

    def __init__(self, scheduler: FairScheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        stats = self._scheduler.stats()
        for kind, metrics in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, text in metrics.items():
                family = kind(f"exoflow_scheduler_{_NAMES.get(name, name)}", text, labels=["scheduler", "tenant"])
                for tenant, each in stats.items():
                    family.add_metric([self._scheduler.name, tenant], float(getattr(each, name)))
                yield family


def shown(scheduler: FairScheduler) -> str:
    """In Prometheus' text form."""
    registry = CollectorRegistry()
    registry.register(SchedulerCollector(scheduler))
    return generate_latest(registry).decode()
