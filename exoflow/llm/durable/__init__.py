"""The engine in a flow: each prompt is a recorded call, and all calls share one engine.

Rooms:
    spec            what a user writes down of an engine, and calls
    calls           the tasks whose calls are recorded
    seats           the engines of this process, by description, and how many requests one has at once
    remote          an engine in a worker of an executor
    host            an engine, wherever it is, as those see it that share it
"""

from exoflow.llm.durable.spec import EngineSpec

__all__ = ["EngineSpec"]
