"""What is asked of a scheduler: one call of a model, and the most that it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exoflow.llm.fair.pace import Pace


@dataclass(frozen=True, slots=True)
class Ask:
    """One call that wants its turn."""

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
    """None: the endpoint decides. Refused where a budget is kept."""
    nano_usd: int | None = None
    """The most that it may cost, in 1e-9 USD. None: nobody knows the prices; refused where a budget in USD is kept."""
    deadline_s: float | None = None
    """It is refused if its turn has not come so many seconds from now."""
    pace: Pace | None = None
    """What the endpoint takes in a minute: its turn comes when there is room."""
