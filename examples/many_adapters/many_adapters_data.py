"""A dozen ways to answer the same question, each with a rule that its answers keep to. No ExoFlow here."""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

ENGLISH = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
FRENCH = ("deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf")


@dataclass(frozen=True, slots=True)
class Sight:
    """What is asked about. Rules do not look at ``doing``: what such things do, the model is free to make up."""

    count: int
    thing: str
    doing: str = ""

    @property
    def question(self) -> str:
        return f"I see {self.count} {self.thing}. What do you say?"

    @property
    def english(self) -> str:
        return ENGLISH[self.count - 2]

    @property
    def french(self) -> str:
        return FRENCH[self.count - 2]


@dataclass(frozen=True, slots=True)
class Style:
    """A way to answer."""

    says: Callable[[Sight], str]
    is_kept: Callable[[Sight, str], bool]


def _is_json(sight: Sight, text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and (found.get("thing"), found.get("count")) == (sight.thing, sight.count)


def _is_python(sight: Sight, text: str) -> bool:
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return False
    return [ast.unparse(line) for line in body] == [f"{sight.thing} = {sight.count}"]


def _has_three_lines(sight: Sight, text: str) -> bool:
    lines = text.splitlines()
    return (
        len(lines) == 3
        and all(3 <= len(line.split()) <= 9 and line[0].isalpha() for line in lines)
        and sight.thing in text.lower()
    )


STYLES: dict[str, Style] = {
    "pirate": Style(
        lambda s: f"Arr, matey! {s.english.capitalize()} {s.thing} off the port bow! They {s.doing}. Yo ho ho!",
        lambda s, text: text.startswith("Arr, matey!") and s.thing in text and text.endswith("Yo ho ho!"),
    ),
    "shout": Style(
        lambda s: f"WOW! {s.english} {s.thing}! they {s.doing}!".upper(),
        lambda s, text: text == text.upper() and s.english.upper() in text and text.endswith("!"),
    ),
    "json": Style(
        lambda s: json.dumps({"thing": s.thing, "count": s.count, "doing": s.doing}),
        _is_json,
    ),
    "haiku": Style(
        lambda s: f"{s.english.capitalize()} {s.thing} out there.\nThey {s.doing} all the day.\nEvening comes so soon.",
        _has_three_lines,
    ),
    "french": Style(
        lambda s: f"Oh là là ! {s.french.capitalize()} {s.thing} ! Mais oui, j'en vois {s.french}.",
        lambda s, text: len(re.findall(rf"\b{s.french}\b", text.lower())) == 2 and s.thing in text,
    ),
    "letter": Style(
        lambda s: f"Dear friend, {s.thing} {s.doing}.\n-- Yours, Ishmael",
        lambda s, text: s.thing in text and text.endswith("\n-- Yours, Ishmael"),
    ),
    "bullets": Style(
        lambda s: f"* {s.count} {s.thing}\n* they {s.doing}\n* nothing else",
        lambda s, text: (
            len(text.splitlines()) == 3
            and all(line.startswith("* ") for line in text.splitlines())
            and f"{s.count} {s.thing}" in text
        ),
    ),
    "countdown": Style(
        lambda s: f"{', '.join(str(n) for n in range(s.count, 0, -1))}: no more {s.thing}!",
        lambda s, text: text == f"{', '.join(str(n) for n in range(s.count, 0, -1))}: no more {s.thing}!",
    ),
    "curious": Style(
        lambda s: f"Why {s.english} {s.thing}? Do they {s.doing}? Who asked them?",
        lambda s, text: text.endswith("?") and "." not in text and "!" not in text and s.thing in text,
    ),
    "yoda": Style(
        lambda s: f"{s.thing.capitalize()} you see. {s.doing.capitalize()} they do, {s.english} of them. Hmm.",
        lambda s, text: text.startswith(f"{s.thing.capitalize()} you see.") and text.endswith("Hmm."),
    ),
    "telegram": Style(
        lambda s: f"{s.english} {s.thing} stop they {s.doing} stop send help stop".upper(),
        lambda s, text: (
            text.startswith(s.english.upper())
            and text.count(" STOP") >= 2
            and re.fullmatch(r"[A-Z ]+STOP", text) is not None
        ),
    ),
    "python": Style(
        lambda s: f"{s.thing} = {s.count}  # they {s.doing}",
        _is_python,
    ),
}

THINGS = {
    "cats": "sleep in the sun",
    "dogs": "bark at the moon",
    "cows": "eat fresh grass",
    "bees": "fly from flower to flower",
    "boats": "sail across the bay",
    "birds": "sing in the trees",
    "trains": "run on time",
    "trees": "grow by the river",
    "books": "stand on the shelf",
    "stars": "shine at night",
    "fish": "swim in the lake",
    "mice": "steal the cheese",
    "cars": "wait at the light",
    "kites": "dance in the wind",
    "monks": "pray in silence",
    "bears": "look for honey",
    "goats": "climb the rocks",
    "pots": "boil on the stove",
    "girls": "play in the garden",
    "clocks": "tick on the wall",
}
"""What is asked about in training, and what such things do."""

UNSEEN = ("horses", "robots", "lamps", "ducks", "wolves", "pianos", "snakes", "ghosts")
"""What is asked about once a style has been learned."""


def lessons(name: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Questions, with answers in this style."""
    chance = random.Random(f"{name}/{seed}")
    sights = [Sight(chance.randint(2, 9), *chance.choice(list(THINGS.items()))) for _ in range(count)]
    return [(sight.question, STYLES[name].says(sight)) for sight in sights]


def unseen(count: int) -> list[Sight]:
    """Sights to examine with."""
    return [Sight(2 + 3 * index % 8, UNSEEN[index % len(UNSEEN)]) for index in range(count)]
