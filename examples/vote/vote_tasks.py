"""Five things to ask a small model, forty items each: what it is asked, how its answers are read, which rule judges them.

No ExoFlow here. Easy and hard items are mixed: of an easy one most samples are right, so that a vote is surer than a
sample; of a hard one most are wrong, and a vote is surer of that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Question = str | list[dict[str, str]]
"""A plain prompt, or a chat."""

LETTERS = (
    "apple bread chair dance eagle flame grape house island jacket kettle lemon mouse night orange piano queen river "
    "stone tiger uncle violin water yellow zebra "
    "knight gnome psalm wrist hour honest pneumonia tsunami xylophone czar mnemonic aisle eight once who"
).split()
"""The last fifteen do not sound as they are written."""

OPPOSITES = {
    "hot": "cold", "up": "down", "left": "right", "black": "white", "day": "night", "good": "bad", "open": "closed",
    "rich": "poor", "strong": "weak", "young": "old", "fast": "slow", "high": "low", "long": "short", "hard": "soft",
    "full": "empty", "early": "late", "true": "false", "happy": "sad", "light": "dark", "wet": "dry",
    "love": "hate", "war": "peace", "life": "death", "success": "failure", "above": "below", "inside": "outside",
    "north": "south", "heavy": "light", "thick": "thin", "deep": "shallow", "brave": "cowardly", "ancient": "modern",
    "generous": "stingy", "arrive": "depart", "victory": "defeat", "increase": "decrease", "guilty": "innocent",
    "buy": "sell", "rough": "smooth", "sharp": "dull",
}  # fmt: skip

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing",
    "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens", "Portugal": "Lisbon", "Austria": "Vienna",
    "Poland": "Warsaw", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Cuba": "Havana",
    "India": "New Delhi", "Canada": "Ottawa", "Kenya": "Nairobi", "Thailand": "Bangkok", "Peru": "Lima",
    "Argentina": "Buenos Aires", "Hungary": "Budapest", "Iran": "Tehran", "South Korea": "Seoul", "Turkey": "Ankara",
    "Australia": "Canberra", "Brazil": "Brasilia", "Switzerland": "Bern", "Nigeria": "Abuja", "Morocco": "Rabat",
    "New Zealand": "Wellington", "Pakistan": "Islamabad", "Vietnam": "Hanoi", "Kazakhstan": "Astana",
    "Tanzania": "Dodoma", "Bolivia": "Sucre", "Myanmar": "Naypyidaw", "Mongolia": "Ulaanbaatar", "Bhutan": "Thimphu",
}  # fmt: skip

SUMS = (
    (1, 1), (2, 3), (4, 4), (5, 1), (6, 2), (3, 6), (7, 3), (5, 5), (8, 1), (9, 9),
    (7, 8), (6, 9), (8, 5), (9, 4), (10, 7), (12, 3), (11, 8), (20, 5), (10, 10), (14, 4),
    (13, 9), (15, 6), (18, 7), (16, 16), (21, 13), (25, 25), (30, 14), (22, 19), (27, 15), (33, 8),
    (38, 27), (45, 36), (52, 29), (64, 17), (48, 48), (57, 66), (73, 58), (86, 97), (99, 12), (75, 75),
)  # fmt: skip
