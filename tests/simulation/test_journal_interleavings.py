import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from exoflow.errors import Fenced
from exoflow.journal import gc, journal as journal_module, numbered, owners, packs, slots, takeover

_spec = importlib.util.spec_from_file_location("journal_world", Path(__file__).with_name("journal_world.py"))
assert _spec is not None
assert _spec.loader is not None
sim = importlib.util.module_from_spec(_spec)
sys.modules["journal_world"] = sim
_spec.loader.exec_module(sim)

SEEDS = int(os.environ.get("EXOFLOW_SEEDS", "60"))
"""For each variant. 20,000 take some minutes."""


hears_beat, note = takeover.hears_beat, takeover.note


def play(seed: int, *, grows: bool, bucket: bool = False, drop: bool = False) -> "sim.World":
    """Three generations of processes that start, adopt and collect the same runs; the power may fail between."""
    world = sim.World(seed, grows=grows, bucket=bucket)
    if bucket:
        numbered.read_each = lambda store, names: map(store.read, names)  # an actor is one thread
        takeover._heard.clear()  # what another world's processes saw
        takeover._moved.clear()
        takeover.note = lambda store, journal, newest, _: note(store, journal, newest, lambda: world.clock_s)
        takeover.hears_beat = lambda store, journal: hears_beat(store, journal, lambda: world.clock_s, world.sleep)
    scripts = [sim.starts(world, "a"), sim.starts(world, "a"), sim.starts(world, None), sim.adopts(world, ["a"])]
    world.play(scripts)
    for _ in range(2):
        if world.random.random() < world.power:
            world.fail_power()
        known = sorted(world.acked) or ["a"]
        scripts = [sim.adopts(world, known), sim.adopts(world, known), sim.starts(world, "a")]
        world.play([*scripts, *(sim.collects(world, drop=drop) for _ in range(1 + bucket))])
    sim.check(world)
    return world


@pytest.fixture(autouse=True)
def listening_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(takeover, "hears_beat", hears_beat)
    monkeypatch.setattr(takeover, "note", note)
    monkeypatch.setattr(numbered, "read_each", numbered.read_each)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("grows", "bucket", "drop"),
    [(True, False, False), (True, False, True), (False, False, False), (False, True, False), (False, True, True)],
    ids=["local", "local with gc", "memory", "bucket", "bucket with gc"],
)
def test_nothing_acknowledged_is_lost_and_no_epoch_has_two_owners(grows: bool, bucket: bool, drop: bool) -> None:
    acknowledged = takeovers = collected = 0
    for seed in range(SEEDS):
        world = play(seed, grows=grows, bucket=bucket, drop=drop)
        assert not world.broken, f"seed {seed}: {world.broken}"
        acknowledged += world.acknowledged
        takeovers += world.takeovers
        collected += world.collected
    assert acknowledged > 5 * SEEDS
    assert takeovers > SEEDS / 2
    assert collected > SEEDS / 2 or not grows and not bucket
    if SEEDS > 1000:
        print(f"{SEEDS} seeds, {takeovers} takeovers, {acknowledged} acknowledged records, {collected} deleted")


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    def trace(seed: int) -> dict[str, bytes]:
        return {name: thing.data for name, thing in play(seed, grows=True).things.items() if name[0] != "p"}

    assert trace(7) == trace(7)
    assert trace(7) != trace(8)


def found_within(seeds: int, *, bucket: bool = False, drop: bool = False) -> bool:
    return any(play(seed, grows=not bucket, bucket=bucket, drop=drop).broken for seed in range(seeds))


def test_an_owner_that_does_not_look_at_the_next_slot_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots.GrowingSlots, "_stranger_came", lambda self: False)
    assert found_within(100)


def test_a_taker_that_does_not_seal_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "seal", lambda *args, **kwargs: True)
    assert found_within(600)


def test_a_taker_that_does_not_create_its_epoch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "create_claim", lambda *args: True)
    assert found_within(100)


def test_a_gc_that_deletes_before_it_packs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "write_pack", lambda *args: None)
    assert found_within(100)


def test_in_a_bucket_writes_land_after_their_senders_were_told_that_they_failed() -> None:
    assert sum(play(seed, grows=False, bucket=True).late for seed in range(30)) > 5


def test_in_a_bucket_a_taker_that_does_not_seal_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "seal", lambda *args, **kwargs: True)
    assert found_within(100, bucket=True)


def test_in_a_bucket_an_owner_that_does_not_look_at_what_exists_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def created(store: Any, name: str, data: bytes, tries: int = 1) -> bool:
        store.create(name, data)
        return True  # whoever made it

    monkeypatch.setattr(slots, "created", created)
    assert found_within(100, bucket=True)


def test_in_a_bucket_a_claim_that_is_not_looked_at_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def created(store: Any, name: str, data: bytes) -> bool:
        store.create(name, data)
        return True

    monkeypatch.setattr(owners, "created", created)
    assert found_within(100, bucket=True)


def test_in_a_bucket_an_owner_that_goes_on_behind_a_seal_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    write = slots.CreatedSlots.write

    def on_and_on(self: slots.CreatedSlots, entries: Any, first: int) -> None:
        while True:
            try:
                return write(self, entries, first)
            except Fenced:
                self.number += 1

    monkeypatch.setattr(slots.CreatedSlots, "write", on_and_on)
    assert found_within(100, bucket=True)


def test_in_a_bucket_a_gc_that_does_not_say_where_a_journal_ends_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "mark_end", lambda *args: None)
    assert found_within(100, bucket=True)


def test_in_a_bucket_a_gc_that_does_not_claim_what_it_drops_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "dig", lambda *args: True)
    assert found_within(200, bucket=True, drop=True)


def test_in_a_bucket_a_gc_that_deletes_seals_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_whole = gc._plan_whole

    def with_seal(*args: Any) -> Any:
        plan = plan_whole(*args)
        if plan is not None:
            plan.slots.append(plan.seal)
        return plan

    monkeypatch.setattr(gc, "_plan_whole", with_seal)
    assert found_within(400, bucket=True)
