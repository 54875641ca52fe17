"""Scenarios that nobody thought of: graphs, annotations and crashes from a seed. ``EXOFLOW_SEEDS=500`` for more."""

import os
import random

import pytest

SEEDS = int(os.environ.get("EXOFLOW_SEEDS", "40"))
FIRST = int(os.environ.get("EXOFLOW_FIRST_SEED", "0"))
NAMES = "ABCDEF"


def drawn(chance: random.Random) -> tuple[str, dict[str, str]]:
    """A graph and what its tasks say of themselves."""
    names = NAMES[: chance.randint(2, len(NAMES))]
    edges = [names[0]]
    for i, name in enumerate(names[1:], 1):
        sources = chance.sample(names[:i], chance.randint(1, min(2, i)))
        edges += [f"{source}→{name}" for source in sources]
    edges += [f"{name}→{names[-1]}" for name in names[:-1] if not any(edge.startswith(f"{name}→") for edge in edges)]
    words = {}
    for name in names:
        effect = chance.choice(["", "", "", "irr retry", "idem", "rb", "rb"])
        choice = chance.choice(["ND", ""]) if "r" not in effect.split() else ""
        big = "big" if chance.random() < 0.2 else ""
        words[name] = " ".join([effect, choice, chance.choice(["sync", "async", "never", "auto"]), big])
    return ", ".join(edges), words


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_whatever_dies_one_failure_free_execution_is_seen(stage, seed):
    chance = random.Random(seed)
    graph, notes = drawn(chance)
    form = chance.choice(["last", "every", "refs", "async"])
    inputs, words = stage.parsed(graph, notes)
    for _ in range(chance.randint(1, 4)):
        point = chance.choice(["pre", "mid", "eff", "ret", "dur", "done", "call"])
        life = stage.wait(stage.start(inputs, words, f"ALL {point}({chance.choice(list(inputs))})", form=form))
        assert life.exit_code in (0, -9), life.stderr  # the point may not come: then the run is done
    life = stage.wait(stage.start(inputs, words, "none", form=form))
    assert life.error is None, life.stderr
    story = stage.story([life], words)
    story.check()
    for name in [name for name, said in words.items() if "irr" in said]:
        payloads = {line[3] for line in story.of("effect", name)}
        assert len(payloads) == 1, f"{name} was asked for different things"
