"""``/metrics``, for Prometheus: read from the engine when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from exoflow.llm.engine.engine import Engine

BASE = ""
"""The label of the base model."""


class EngineCollector(Collector):
    """What an engine says of itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        for state in ("running", "waiting", "loading"):
            family = GaugeMetricFamily(f"exoflow_llm_requests_{state}", f"Requests {state}.", labels=["adapter"])
            for name, count in sorted(getattr(stats, state).items(), key=lambda each: each[0] or BASE):
                family.add_metric([name or BASE], count)
            yield family
        labels = ["adapter", "version", "place"]
        where = GaugeMetricFamily("exoflow_llm_adapter_info", "Where an adapter is.", labels=labels)
        for adapter in self._engine.adapters():
            where.add_metric([adapter.name, adapter.version, adapter.place], 1)
        yield where
        gauges = {
            "pages": "Pages of the pool.",
            "free_pages": "Pages that nobody owns.",
            "reclaimable_pages": "Pages that are kept for later only.",
            "adapter_pages": "Pages of adapters.",
            "resident": "Adapters in the pool.",
            "step_s": "Seconds of a step, on average.",
        }
        for name, text in gauges.items():
            yield GaugeMetricFamily(f"exoflow_llm_{name}", text, value=getattr(stats, name))
        counters = {
            "loads": "Adapters copied into the pool.",
            "preemptions": "Requests that gave up their pages.",
            "steps": "Steps.",
            "prompt_tokens": "Tokens of prompts computed.",
            "cached_tokens": "Tokens of prompts found in the prefix cache.",
            "output_tokens": "Tokens generated.",
        }
        for name, text in counters.items():
            yield CounterMetricFamily(f"exoflow_llm_{name}", text, value=getattr(stats, name))
