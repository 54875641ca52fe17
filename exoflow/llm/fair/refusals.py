"""Why a call is not made, in words."""

from __future__ import annotations

from decimal import Decimal

from exoflow.errors import BudgetExceeded
from exoflow.llm.engine.request import Overloaded, WrongRequest
from exoflow.llm.fair.asks import Ask, Waiter
from exoflow.llm.fair.ledger import Account, Short, Unit, short
from exoflow.llm.fair.policy import Path
from exoflow.model import NANO_USD_PER_USD


def check_budgets(ask: Ask, account: Account, levels: tuple[str, ...]) -> None:
    """Refuse what can never go.

    Raises:
        WrongRequest: a budget is kept, and nobody says what the call takes at most.
        BudgetExceeded: it takes more than is left, whatever becomes of those in flight.
    """
    for each in account.upwards:
        if each.has_budget and ask.max_output_tokens is None:
            raise WrongRequest(
                f"{named(each.path, levels)} has a budget, which is reserved before the call: give max_tokens="
            )
        if each.limit_nano_usd is not None and ask.nano_usd is None:
            raise WrongRequest(
                f"{named(each.path, levels)} has a budget in USD: say what tokens cost, LLM(..., prices=Prices(...))"
            )
    lack = short(account, *ask.most)
    if lack is not None and lack.is_final:
        raise exceeded(lack, levels)


def check_waiting(account: Account, levels: tuple[str, ...]) -> None:
    """Refuse one more than may wait.

    Raises:
        Overloaded: it is.
    """
    for each in account.upwards:
        if each.limit_waiting is not None and each.waiting > each.limit_waiting:
            raise Overloaded(
                f"{named(each.path, levels)}: {each.limit_waiting} calls wait already, which is max_waiting: "
                "ask again later, or wait for answers before asking for more"
            )


def exceeded(lack: Short, levels: tuple[str, ...]) -> BudgetExceeded:
    who, budget = named(lack.account.path, levels), "budget_usd" if lack.unit == "nano_usd" else "budget_tokens"
    reserved = f" and {_amount(lack.reserved, lack.unit)} reserved" if lack.reserved else ""
    error = BudgetExceeded(
        f"{who}: {_amount(lack.spent, lack.unit)} of {_amount(lack.limit, lack.unit)} are spent{reserved}, and this "
        f"call may take {_amount(lack.asked, lack.unit)}: raise {budget}, or lower max_tokens"
    )
    error.who, error.unit = who, lack.unit
    error.limit, error.spent, error.reserved, error.asked = lack.limit, lack.spent, lack.reserved, lack.asked
    return error


def too_late(waiter: Waiter) -> Overloaded:
    return Overloaded(f"its turn has not come in deadline_s={waiter.ask.deadline_s}: there is more to do than slots")


def named(path: Path, levels: tuple[str, ...]) -> str:
    """``tenant acme, user ann``."""
    if not path:
        return "all tenants together"
    return ", ".join(f"{level} {name or '(none)'}" for level, name in zip((*levels, "run"), path, strict=False))


def _amount(value: int, unit: Unit) -> str:
    return f"{value:,} tokens" if unit == "tokens" else f"{Decimal(value) / NANO_USD_PER_USD:f} USD"
