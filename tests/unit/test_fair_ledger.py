"""Who has spent what, and what is reserved."""

from __future__ import annotations

from decimal import Decimal

import pytest

from exoflow.llm.fair.clients import SWEEP_MIN, Clients
from exoflow.llm.fair.ledger import Account, Ledger, short
from exoflow.llm.fair.policy import Path, path_of
from exoflow.llm.fair.tenants import Tenant, Tenants

ANN = ("acme", "ann", "r1")


def ledger(named: dict[str | Path, Tenant], each_run: Tenant | None = None) -> Ledger:
    return Ledger(terms(named, each_run).of)


def terms(named: dict[str | Path, Tenant], each_run: Tenant | None = None) -> Tenants:
    return Tenants([(path_of(name), tenant) for name, tenant in named.items()], each_run, 3)


def sums(account: Account) -> tuple[int, int, int, int]:
    return account.spent_tokens, account.spent_nano_usd, account.reserved_tokens, account.reserved_nano_usd


def test_what_is_spent_below_is_spent_above() -> None:
    books = ledger({})
    ann, bob = books.account(ANN), books.account(("acme", "bob", "r2"))
    books.spend(ann, "r1", "a", 10, 100)
    books.spend(bob, "r2", "a", 5, 50)
    assert sums(books.account(("acme",))) == sums(books.account(())) == (15, 150, 0, 0)
    assert sums(books.account(("acme", "ann"))) == (10, 100, 0, 0)


def test_a_call_is_settled_once_ever() -> None:
    books = ledger({})
    ann = books.account(ANN)
    assert books.spend(ann, "r1", "a", 10, 100)
    assert not books.spend(ann, "r1", "a", 10, 100)
    assert books.spend(ann, "r2", "a", 1, 1), "another run's"
    assert sums(ann) == (11, 101, 0, 0)


def test_runs_that_ended_are_forgotten_and_what_they_spent_is_not() -> None:
    everyone = Clients(terms({"kept": Tenant(each=Tenant(each=Tenant(budget_tokens=50)))}), ("tenant", "user"), weighed)
    for number in range(3 * SWEEP_MIN):
        client = everyone.of({"tenant": "acme"}, f"r{number}")
        everyone.ledger.spend(client.account, f"r{number}", "a", 1, 0)
        client = everyone.of({"tenant": "kept"}, "run")
        everyone.ledger.spend(client.account, "run", f"{number}", 1, 0)
    assert len(list(everyone)) <= SWEEP_MIN + 1
    assert everyone.ledger.account(("acme",)).spent_tokens == 3 * SWEEP_MIN
    assert everyone.of({"tenant": "kept"}, "run").account.spent_tokens == 3 * SWEEP_MIN


def weighed(path: Path, weight: object) -> None:
    raise AssertionError("nobody has a weight")


def test_a_reservation_is_given_back_once() -> None:
    books = ledger({})
    ann = books.account(ANN)
    first, second = books.reserve(ann, 10, 100), books.reserve(ann, 20, 200)
    assert sums(books.account(())) == (0, 0, 30, 300)
    books.release(first)
    books.release(first)
    assert sums(ann) == (0, 0, 20, 200)
    books.release(second)
    assert sums(ann) == sums(books.account(())) == (0, 0, 0, 0)


def test_the_strictest_budget_is_the_one_that_refuses() -> None:
    books = ledger(
        {
            (): Tenant(budget_tokens=1000),
            "acme": Tenant(budget_tokens=500, each=Tenant(budget_tokens=100)),
            ("acme", "bob"): Tenant(),
        }
    )
    ann = books.account(ANN)
    lack = short(ann, 101, 0)
    assert lack is not None and lack.account.path == ("acme", "ann") and lack.is_final
    assert short(ann, 100, 0) is None
    assert short(books.account(("acme", "bob", "r")), 500, 0) is None, "who is named has what is said there"
    lack = short(ann, 1001, 0)
    assert lack is not None and lack.account.path == ("acme", "ann"), "it has the least part of the call left"
    books.spend(books.account(("acme", "bob", "r")), "r", "a", 480, 0)
    lack = short(ann, 101, 0)
    assert lack is not None and lack.account.path == ("acme",)


def test_what_only_has_to_wait_is_not_short_for_good() -> None:
    books = ledger({"acme": Tenant(budget_usd="0.000001")})
    ann = books.account(ANN)
    held = books.reserve(ann, 1, 600)
    lack = short(ann, 1, 500)
    assert lack is not None and not lack.is_final and (lack.limit, lack.reserved, lack.asked) == (1000, 600, 500)
    books.release(held)
    assert short(ann, 1, 500) is None
    books.spend(ann, "r1", "a", 1, 501)
    lack = short(ann, 1, 500)
    assert lack is not None and lack.is_final


def test_each_run_has_a_budget_of_its_own() -> None:
    books = ledger({}, each_run=Tenant(budget_tokens=10))
    one, other = books.account(ANN), books.account(("acme", "ann", "r2"))
    books.spend(one, "r1", "a", 10, 0)
    assert short(one, 1, 0) is not None
    assert short(other, 1, 0) is None
    assert short(books.account(("acme", "ann", "")), 11, 0) is None, "outside of any flow there is no run"


def test_money_is_counted_in_whole_nano_dollars() -> None:
    assert Tenant(budget_usd=0.15).budget_nano_usd == 150_000_000
    assert Tenant(budget_usd="1e-9").budget_nano_usd == 1
    assert Tenant(budget_usd=Decimal(50)).budget_nano_usd == 50 * 10**9
    assert Tenant().budget_nano_usd is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": 0}, {"weight": -1}, {"weight": "much"}, {"weight": float("inf")}, {"weight": True},
        {"priority": -1}, {"priority": 0.5}, {"budget_usd": -1}, {"budget_usd": "1e-10"}, {"budget_tokens": 1.5},
        {"max_waiting": -1},
    ],
)  # fmt: skip
def test_wrong_terms_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}|is no number"):
        Tenant(**wrong)  # type: ignore[arg-type]


def test_who_is_below_a_tenant_can_be_put_behind_it_and_not_before() -> None:
    bands = terms({"acme": Tenant(priority=1), ("acme", "ann"): Tenant(priority=2)})
    assert bands.band(ANN) == 2
    assert bands.band(("acme", "bob", "r")) == 1
    assert bands.band(("other", "", "")) == 0
