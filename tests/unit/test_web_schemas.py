"""What OpenAPI is told of a signature."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pydantic

from exoflow.web.schemas import schema


@dataclass
class Room:
    nights: int


@dataclass
class Trip:
    day: date
    rooms: list[Room]


class Guest(pydantic.BaseModel):
    name: str
    room: Guest | None = None


def typed(trip: Trip, where: Path, guest: Guest, odd: date | str = "", **rest: int) -> list[Room]: ...


def untyped(day, parts=1): ...  # type: ignore[no-untyped-def]  # that is the point


def test_schemas_follow_signatures() -> None:
    found = schema(typed, untyped)
    first, second = found.arguments
    assert first["properties"]["trip"] == {"$ref": "#/components/schemas/Trip"}
    assert first["properties"]["where"] == {"type": "string", "format": "path"}
    assert first["properties"]["guest"] == {"$ref": "#/components/schemas/Guest"} or first["properties"]["guest"]
    assert first["properties"]["odd"] == {}
    assert first["required"] == ["trip", "where", "guest"]
    assert first["additionalProperties"] is True
    assert second == {
        "type": "object", "properties": {"day": {}, "parts": {}}, "additionalProperties": False, "required": ["day"],
    }  # fmt: skip
    assert found.results == [{"type": "array", "items": {"$ref": "#/components/schemas/Room"}}, {}]
    assert set(found.components) >= {"Trip", "Room", "Guest"}
