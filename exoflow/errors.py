"""Every exception that ExoFlow raises, in one tree.

ExoFlowError
├── RunError               about one run
│   ├── TaskFailed         a task's error that does not survive pickling, or that has no type of its own here
│   ├── RunNotFound
│   ├── RunMismatch        the id is taken by a run with other inputs, or the code of a used result changed
│   ├── RunIsLive          another process owns the run
│   ├── RunCancelled
│   ├── InDoubt            an irrevocable effect may or may not have happened
│   ├── UndoFailed         an undo failed for good: its effect is in place
│   ├── DidNotHappen       raised by a task's body: the effect certainly did not happen
│   └── NondeterministicFlow
├── StorageError
│   ├── Conflict           an atomic create found somebody else's object
│   ├── Corrupt            bytes that something already released depends on are damaged
│   └── UnsupportedStore
├── ExecutorError
├── CodecError             a value, an argument or an error cannot be encoded or decoded
└── LLMError
    ├── AdapterError
    ├── OutOfPages
    ├── ContextTooLong
    ├── NoConsensus        all answers of a vote abstain
    ├── BudgetExceeded     a call may take more than a budget has left
    ├── WrongForm          an answer is not of the form that was asked for
    └── CallFailed         an endpoint gave no answer
        ├── CallRefused    asking again changes nothing: 400, 401, 404, a quota that is used up
        ├── RateLimited    429, to the last try
        └── Unanswered     5xx, timeouts and lost connections, to the last try

Interruption(BaseException)   control flow: ``except Exception`` in a flow body cannot eat it
├── Fenced                 a newer epoch owns the run
├── Cancelled
└── Superseded             the body has read a result that was retired; it is replayed from the top
"""

from __future__ import annotations


class ExoFlowError(Exception):
    """Any operating error of ExoFlow."""


class RunError(ExoFlowError):
    """An error about one run. ``run_id`` is set where it is known."""

    run_id: str | None = None


class TaskFailed(RunError):
    """A task's error, as text: its own exception does not survive pickling, or vanished with its worker."""


class RunNotFound(RunError):
    """No run has this id in this store."""


class RunMismatch(RunError):
    """The id belongs to a run with other inputs, or a result that would be used came from other code."""


class RunIsLive(RunError):
    """Another process owns the run; ``processes`` holds the ids of those that do, where known."""

    processes: tuple[int, ...] = ()


class RunCancelled(RunError):
    """The run was cancelled."""


class InDoubt(RunError):
    """An irrevocable effect may or may not have happened; ``on_doubt`` is to say."""


class UndoFailed(RunError):
    """An undo failed as often as it may: the effect that it was to undo is in place. Resuming the run tries again."""

    call: str = ""
    """Whose effect it is."""
    key: str = ""
    """The idempotency key of the attempt that had it: what the other side knows it by."""
    attempt: str = ""
    """The version of that attempt."""


class DidNotHappen(RunError):
    """Raised by the body of an irrevocable task: its effect certainly did not happen. Also a probe's answer."""


class NondeterministicFlow(RunError):
    """A replayed flow body made another call than the one that was recorded."""


class StorageError(ExoFlowError):
    """The store failed. Nothing that was acknowledged is lost."""


class Conflict(StorageError):
    """An object that had to be created exists already."""


class Corrupt(StorageError):
    """Damaged bytes, and something that was already released depends on them."""


class UnsupportedStore(StorageError):
    """The store has no atomic create that was seen to hold, so it cannot be used."""


class ExecutorError(ExoFlowError):
    """An executor cannot do what was asked of it."""


class CodecError(ExoFlowError):
    """A value that cannot be encoded or decoded. The message names the place inside it."""


class LLMError(ExoFlowError):
    """Any operating error of ``exoflow.llm``."""


class AdapterError(LLMError):
    """A LoRA adapter is unknown, unsupported or broken."""


class OutOfPages(LLMError):
    """The memory pool of the engine is exhausted."""


class ContextTooLong(LLMError):
    """A prompt does not fit into the model's context."""


class NoConsensus(LLMError):
    """All answers of a vote abstain: none could be parsed."""


class BudgetExceeded(LLMError):
    """A call was not made: it may take more than a budget has left."""

    who: str = ""
    """Whose budget: ``"tenant acme, user ann"``."""
    unit: str = ""
    """``"tokens"`` or ``"nano_usd"``, 1e-9 USD: of all that follow."""
    limit: int = 0
    spent: int = 0
    reserved: int = 0
    """By calls that were in flight."""
    asked: int = 0
    """The most that the call may take."""


class WrongForm(LLMError):
    """An answer is not of the form that was asked for. The call itself was good, and is recorded."""

    text: str = ""
    """The answer."""


class CallFailed(LLMError):
    """A call of an endpoint gave no answer."""

    status: int | None = None
    """Of HTTP; None: none came."""
    body: str = ""
    """The beginning of what the endpoint said."""
    tries: int = 1
    maybe_billed: bool = False
    """A try was lost on its way, and may have been answered on the other side."""


class CallRefused(CallFailed):
    """The endpoint will not answer this, however often it is asked."""


class RateLimited(CallFailed):
    """The endpoint wanted fewer requests, to the last try."""


class Unanswered(CallFailed):
    """The endpoint failed, hung or was not reached, to the last try."""


class Interruption(BaseException):
    """Ends a flow body from inside. Not an ``Exception``: a body must not swallow it."""


class Fenced(Interruption):
    """A newer epoch owns the run: whatever this process still does changes nothing."""


class Cancelled(Interruption):
    """The run was cancelled; every ExoFlow call in the body raises this."""


class Superseded(Interruption):
    """What the body has read was retired; it is set aside and replayed from the top."""
