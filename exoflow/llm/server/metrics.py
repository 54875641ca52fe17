"""``/metrics``, for Prometheus: what the engine says when it is asked, and how requests went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from exoflow.llm.engine.adapters.entries import AdapterInfo
    from exoflow.llm.engine.engine import Engine
    from exoflow.llm.engine.generation import Generation

BASE = ""
"""The label of the base model."""
CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Meters:
    """All that is measured of one server."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(engine))
        self._refused = Counter(
            "exoflow_llm_refusals", "Requests that got no answer.", ["status"], registry=self._registry
        )
        self._first_token_s = Histogram(
            "exoflow_llm_first_token_seconds", "From a prompt's arrival in the engine to its first token.",
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self._answer_s = Histogram(
            "exoflow_llm_answer_seconds", "From a request's arrival to the end of its answer.",
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def ended(self, generations: Sequence[Generation], took_s: float) -> None:
        self._answer_s.observe(took_s)
        for generation in generations:
            first = generation.answers[0].request
            if first.first_token_s is not None:
                self._first_token_s.observe(first.first_token_s - first.arrival_s)

    def shown(self) -> bytes:
        """In Prometheus' form. Waits for the engine's thread."""
        return generate_latest(self._registry)


class EngineCollector(Collector):
    """What an engine says of itself."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> list[Metric]:
        return []  # or it would be asked as soon as it is registered

    def collect(self) -> Iterator[Metric]:
        stats, adapters = self._engine.stats(), self._engine.adapters()
        nobody = dict.fromkeys([None, *(adapter.name for adapter in adapters)], 0)
        for state in ("running", "waiting", "loading"):
            family = GaugeMetricFamily(f"exoflow_llm_requests_{state}", f"Requests {state}.", labels=["adapter"])
            counts: dict[str | None, int] = nobody | getattr(stats, state)
            for name, count in sorted(counts.items(), key=lambda each: each[0] or BASE):
                family.add_metric([name or BASE], count)
            yield family
        yield from _of_adapters(adapters)
        gauges = {
            "pages": "Pages of the pool.",
            "free_pages": "Pages that nobody owns.",
            "reclaimable_pages": "Pages that are kept for later only.",
            "adapter_pages": "Pages of adapters.",
            "resident": "Adapters in the pool.",
        }
        for name, text in gauges.items():
            yield GaugeMetricFamily(f"exoflow_llm_{name}", text, value=getattr(stats, name))
        yield GaugeMetricFamily("exoflow_llm_step_seconds", "Of a step, on average.", value=stats.step_s)
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


def _of_adapters(adapters: Sequence[AdapterInfo]) -> Iterator[Metric]:
    places = GaugeMetricFamily(
        "exoflow_llm_adapter_info", "Where an adapter is.", labels=["adapter", "version", "place"]
    )
    loads = CounterMetricFamily(
        "exoflow_llm_adapter_loads", "How often this version was brought into the pool.", labels=["adapter", "version"]
    )
    for adapter in adapters:
        places.add_metric([adapter.name, adapter.version, adapter.place], 1)
        loads.add_metric([adapter.name, adapter.version], adapter.loads)
    yield places
    yield loads
