"""The actor of the scenarios: its creation is ``New``, and the n-th time that it counts the n-th letter."""

import world

import exoflow

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def words_of(name: str) -> list[str]:
    words: list[str] = world.plan["notes"][name]
    return words


class Counter:
    """What it has counted, and which attempt of each was the one that it has seen."""

    def __init__(self, start: int) -> None:
        world.strike("pre", "New")
        world.trace("enter", "New", [start], exoflow.attempt())
        self.n = start
        self.seen: list[str] = []

    def _count(self, number: int) -> str:
        name = LETTERS[number]
        world.act(name, words_of(name))
        self.n += 1
        self.seen.append(f"{name}:{world.traced('enter', name)}()" if "ND" in words_of(name) else f"{name}()")
        return f"{self.n} {','.join(self.seen)}"

    @exoflow.task(deterministic=True, checkpoint="sync")
    def inc(self, number: int) -> str:
        return self._count(number)

    @exoflow.task
    def choose(self, number: int) -> str:
        return self._count(number)

    @exoflow.task(checkpoint="sync")
    def settle(self, number: int) -> str:
        return self._count(number)

    @exoflow.task(deterministic=True, checkpoint="sync")
    def get(self) -> int:
        return self.n


Every: type[Counter] = exoflow.actor(Counter)


@exoflow.actor(snapshot_every=5)
class Fifth(Counter):
    """A snapshot behind every fifth call."""


@exoflow.actor(snapshot_every=1000)
class Once(Counter):
    """None but the one behind its creation."""


@exoflow.task(effect="idempotent")
def publish(what: str) -> str:
    world.trace("effect", "publish", exoflow.idempotency_key(), what)
    world.strike("eff", "publish")
    return what


__all__ = ["LETTERS", "Every", "Fifth", "Once", "publish"]
