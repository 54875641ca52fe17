"""What is asked of a scheduler: one call of a model, and the most that it may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from exoflow.llm.fair.ledger import Account, Reservation
from exoflow.llm.fair.policy import Path

if TYPE_CHECKING:
    from exoflow.llm.fair.meters import Meter


class Minute(Protocol):
    """What an endpoint takes in a minute: a ``Pace``."""

    def take(self, tokens: int) -> float:
        """0: it is taken. Else nothing is, and these are the seconds to wait before another try."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that wants its turn.

    Raises:
        ValueError: a value is out of range.
    """

    call: str
    """Its id, unique in its run: it is charged once, whoever settles it."""
    run: str = ""
    """Empty: outside of any flow."""
    job: str = ""
    """Asks of one job keep together in their client's order: the flow path whose body called."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Who is charged: ``group_by`` names some of them."""
    input_tokens: int = 0
    max_output_tokens: int | None = None
    """None: the endpoint decides. Refused where a budget is kept; and nothing is reserved of the share for it."""
    nano_usd: int | None = None
    """The most that it may cost, in 1e-9 USD. None: nobody knows the prices; refused where a budget in USD is kept."""
    deadline_s: float | None = None
    """It is refused if its turn has not come so many seconds from now."""
    pace: Minute | None = None
    """What the endpoint takes in a minute: its turn comes when there is room. Who made the call corrects it."""

    def __post_init__(self) -> None:
        for name in ("input_tokens", "max_output_tokens", "nano_usd", "deadline_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"Ask({self.call!r}): {name}={value!r} is less than 0")

    @property
    def most(self) -> tuple[int, int]:
        """Tokens, and 1e-9 USD."""
        return self.input_tokens + (self.max_output_tokens or 0), self.nano_usd or 0


class Place(Enum):
    """Where an ask is."""

    QUEUED = "queued"
    HELD = "held"
    """Its budget is reserved by calls in flight."""
    RUNNING = "running"
    SETTLED = "settled"
    """It is billed, and has its slot still."""
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Client:
    """Whose asks are in one order: a run of a user of a tenant."""

    path: Path
    account: Account
    meter: Meter
    band: int = 0
    has_budget: bool = False


@dataclass(slots=True, eq=False)
class Waiter:
    """An ask on its way. ``policy.Waiting`` says what of it policies read. Whoever has the lock changes it."""

    ask: Ask
    of: Client
    number: int
    arrival_s: float
    input_tokens: int
    max_output_tokens: int
    priority: int
    client: Path
    job: str
    place: Place = Place.QUEUED
    error: Exception | None = None
    """Why it was refused."""
    wake: Callable[[], bool] | None = None
    """Called when it is granted or refused, if somebody waits for that; whether they could be told."""
    is_lost: Callable[[], bool] | None = None
    """Whether nobody is left who could end it."""
    forget_deadline: Callable[[], None] | None = None
    reservation: Reservation | None = None
    charged: int = 0
    """Tokens of its answer that the policy was told of."""

    @property
    def waits(self) -> bool:
        return self.place is Place.QUEUED or self.place is Place.HELD

    @property
    def has_slot(self) -> bool:
        return self.place is Place.RUNNING or self.place is Place.SETTLED

    def __lt__(self, other: Waiter) -> bool:
        return self.number < other.number
