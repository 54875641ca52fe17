"""The attempt boundary: inputs become values, the body runs, and what comes of it becomes an outcome.

Every executor runs attempts by this, and so does the driver, where it runs one in the calling thread.

Rooms:
    running         from attempt to outcome
    inputs          values in the places of Refs
    context         what a body can ask about itself
    actors          an attempt at an actor's call
    spare           what a thread has time for while it reports one
"""

from exoflow.attempts.context import AttemptContext, current_attempt
from exoflow.attempts.inputs import Fetch, InputLost, arguments, inputs_of, wants_refs
from exoflow.attempts.running import Keep, is_async, raised, run_attempt, run_attempt_async

__all__ = [
    "AttemptContext",
    "Fetch",
    "InputLost",
    "Keep",
    "arguments",
    "current_attempt",
    "inputs_of",
    "is_async",
    "raised",
    "run_attempt",
    "run_attempt_async",
    "wants_refs",
]
