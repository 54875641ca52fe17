"""Five things to ask a small model, forty items each: how it is asked, how answers are read, which rule judges them.

No ExoFlow here. Easy and hard items are mixed. Of an easy one most samples are right, and a vote is surer of that than
a sample; of a hard one most are wrong, and a vote is surer of that, too.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LETTERS = (
    "apple", "knight", "bread", "chair", "dance", "honest", "eagle", "flame", "grape", "psalm", "house", "island",
    "jacket", "gnome", "kettle", "lemon", "mouse", "wrist", "night", "orange", "piano", "hour", "queen", "river",
    "stone", "tsunami", "tiger", "uncle", "violin", "xylophone", "water", "yellow", "zebra", "pneumonia", "garlic",
    "hammer", "basket", "czar", "window", "forest",
)  # fmt: skip
"""Every fourth does not sound as it is written."""

OPPOSITES = {
    "hot": "cold", "up": "down", "left": "right", "generous": "stingy", "black": "white", "day": "night",
    "good": "bad", "guilty": "innocent", "open": "closed", "rich": "poor", "strong": "weak", "rough": "smooth",
    "young": "old", "fast": "slow", "high": "low", "brave": "cowardly", "long": "short", "full": "empty",
    "early": "late", "arrive": "depart", "true": "false", "happy": "sad", "light": "dark", "victory": "defeat",
    "wet": "dry", "love": "hate", "war": "peace", "ancient": "modern", "life": "death", "success": "failure",
    "above": "below", "sharp": "dull", "inside": "outside", "north": "south", "heavy": "light", "buy": "sell",
    "thick": "thin", "deep": "shallow", "hard": "soft", "increase": "decrease",
}  # fmt: skip

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Australia": "Canberra", "Spain": "Madrid",
    "Japan": "Tokyo", "China": "Beijing", "Brazil": "Brasilia", "Russia": "Moscow", "Egypt": "Cairo",
    "Greece": "Athens", "Switzerland": "Bern", "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw",
    "Nigeria": "Abuja", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Morocco": "Rabat",
    "Cuba": "Havana", "India": "New Delhi", "Canada": "Ottawa", "New Zealand": "Wellington", "Kenya": "Nairobi",
    "Thailand": "Bangkok", "Peru": "Lima", "Kazakhstan": "Astana", "Argentina": "Buenos Aires", "Hungary": "Budapest",
    "Iran": "Tehran", "Tanzania": "Dodoma", "South Korea": "Seoul", "Turkey": "Ankara", "Pakistan": "Islamabad",
    "Bolivia": "Sucre", "Vietnam": "Hanoi", "Mongolia": "Ulaanbaatar", "Myanmar": "Naypyidaw", "Bhutan": "Thimphu",
}  # fmt: skip

SUMS = (
    (1, 1), (2, 3), (38, 27), (4, 4), (5, 1), (13, 9), (6, 2), (3, 6), (45, 36), (7, 3), (5, 5), (15, 6), (8, 1),
    (9, 9), (52, 29), (7, 8), (6, 9), (18, 7), (8, 5), (9, 4), (64, 17), (10, 7), (12, 3), (16, 16), (11, 8), (20, 5),
    (48, 48), (10, 10), (14, 4), (21, 13), (2, 9), (30, 14), (57, 66), (25, 25), (22, 19), (27, 15), (3, 8), (33, 8),
    (73, 58), (86, 97),
)  # fmt: skip

WORKED = "2 + 2 = 4\n17 + 5 = 22\n3 + 5 = 8\n23 + 14 = 37\n4 + 6 = 10\n"


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of questions."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    """As ``collect`` takes them: an id, a prompt or messages, the answer."""
    parse: Callable[[str], str | None]
    params: Mapping[str, Any]
    judge: Callable[[Any, str], bool] | None = None
    spare: Sequence[Mapping[str, Any]] = field(default=())
    """Two more questions, for votes that are taken at once."""


# How answers are read. None abstains.


def line(text: str) -> str | None:
    """All that was said, without quotes and full stops."""
    return text.strip().strip(string.punctuation + string.whitespace) or None


def word(text: str) -> str | None:
    """The first word."""
    found = re.search(r"[A-Za-z]+", text)
    return found[0] if found else None


def name(text: str) -> str | None:
    """The first words with capital letters, without accents."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    found = re.search(r"[A-Z][a-z]+(?: [A-Z][a-z]+)*", plain)
    return found[0] if found else None


def digits(text: str) -> str | None:
    """The first number."""
    found = re.search(r"\d+", text)
    return found[0] if found else None


# The rules that judge, who know nothing of the right answer.


def may_be_its_letter(question: Any, answer: str) -> bool:
    """It is one letter, and occurs in the word that was asked about."""
    asked = re.findall(r"\w+", question[-1]["content"])[-1]
    return len(answer) == 1 and answer.casefold() in asked


def may_be_its_opposite(question: Any, answer: str) -> bool:
    """It is one word, and none of the question's own."""
    asked = question if isinstance(question, str) else question[-1]["content"]
    return answer.isalpha() and answer.casefold() not in re.findall(r"\w+", asked.casefold())


# How the model is asked.


def chat(shots: Mapping[str, str], question: str) -> list[dict[str, str]]:
    """A talk in which all was answered rightly so far."""
    talk = [(role, text) for pair in shots.items() for role, text in zip(("user", "assistant"), pair, strict=True)]
    return [{"role": role, "content": text} for role, text in [*talk, ("user", question)]]


def letter_of(each: str) -> dict[str, Any]:
    shots = {f"What is the first letter of {shot}?": shot[0].upper() for shot in ("garden", "sun", "moon")}
    return {"id": each, "messages": chat(shots, f"What is the first letter of {each}?"), "answer": each[0]}


def opposite_of(each: str, answer: str) -> dict[str, Any]:
    shots = {"big": "small", "clean": "dirty", "near": "far"}
    asked = {f"What is the opposite of {shot}?": opposite for shot, opposite in shots.items()}
    return {"id": each, "messages": chat(asked, f"What is the opposite of {each}?"), "answer": answer}


SHORT = {"temperature": 0.8, "max_tokens": 8, "stop": ["\n"]}
PLAIN = {"temperature": 0.8, "max_tokens": 6, "stop": ["\n", ".", ","]}

TASKS = {
    "letters": Task(
        "first letter of a word, few-shot chat",
        [letter_of(each) for each in LETTERS],
        line,
        SHORT,
        may_be_its_letter,
        [letter_of("melon"), letter_of("wreath")],
    ),
    "opposites": Task(
        "opposite of a word, few-shot chat",
        [opposite_of(*pair) for pair in OPPOSITES.items()],
        line,
        SHORT,
        may_be_its_opposite,
        [opposite_of("new", "old"), opposite_of("noisy", "quiet")],
    ),
    "completed": Task(
        "“The opposite of X is”, completed",
        [{"id": each, "prompt": f"The opposite of {each} is", "answer": answer} for each, answer in OPPOSITES.items()],
        word,
        PLAIN,
        may_be_its_opposite,
    ),
    "capitals": Task(
        "“The capital of X is”, completed",
        [{"id": each, "prompt": f"The capital of {each} is", "answer": answer} for each, answer in CAPITALS.items()],
        name,
        PLAIN,
    ),
    "sums": Task(
        "“a + b =” after five worked lines, completed",
        [{"id": f"{a} + {b}", "prompt": f"{WORKED}{a} + {b} =", "answer": str(a + b)} for a, b in SUMS],
        digits,
        {"temperature": 0.8, "max_tokens": 5, "stop": ["\n"]},
    ),
}
