"""The simulator catches every broken kernel and journal of the zoo; ``test_seeds`` lets the real ones pass."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from exoflow.kernel.kernel import Kernel
from exoflow.testing.simulation import Violation, simulate
from exoflow.testing.simulation.doubles import SimulatedLog
from exoflow.testing.simulation.world import World
from exoflow.testing.simulation.zoo import ANIMALS, HABITATS

SEEDS = 3500
KNOWN = (317, 272, 190, 77)
"""Seeds that show the animals that take longest; they are tried first."""


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("animal", ANIMALS, ids=lambda animal: animal.__name__)
def test_it_is_caught(
    animal: type[Kernel] | type[SimulatedLog],
    loop: asyncio.AbstractEventLoop,
    record_property: Callable[[str, object], None],
) -> None:
    world = HABITATS.get(animal, World)
    for seed in (*KNOWN, *range(SEEDS)):
        try:
            if issubclass(animal, Kernel):
                simulate(seed, kernel=animal, world=world, loop=loop)
            else:
                simulate(seed, log=animal, world=world, loop=loop)
        except Violation as violation:
            record_property("seeds", seed + 1)
            print(f"{animal.__name__}: seed {seed}: {str(violation)[:120]}")
            simulate(seed, world=world, loop=loop)  # it is the animal that is broken
            return
    pytest.fail(f"{animal.__name__} lived through {SEEDS} seeds: {animal.__doc__}")


def test_every_animal_says_which_rule_it_breaks() -> None:
    assert len(ANIMALS) >= 12
    assert all(animal.__doc__ and "Breaks" in animal.__doc__ for animal in ANIMALS)
