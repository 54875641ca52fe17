"""A travel agency that never double-books: a room and a seat, both or neither, paid once. README.md tells its story.

pip install 'exoflow[sql,web]' aiohttp
python travel.py open                          fills the database: travel.sqlite, or what TRAVEL_DATABASE says
exoflow serve travel.py                        serves the flows over HTTP
python travel.py load --rate 50 --count 1000   guests come; kill the gateway meanwhile, and start it again
python travel.py audit                         reads the books
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from sqlalchemy import inspect

from travel_audit import audit, compare, receipts, summary
from travel_tables import CITIES, fill, writer
from travel_variants import (
    recommend,
    reserve_async,
    reserve_parallel,
    reserve_rollback,
    reserve_sync,
    reserve_transactional,
    search,
)

VARIANTS = {
    "sync": reserve_sync,
    "parallel": reserve_parallel,
    "async": reserve_async,
    "rollback": reserve_rollback,
    "transactional": reserve_transactional,
}
__all__ = ["VARIANTS", "recommend", "search"]


def main() -> int:
    words = parse()
    if words.command == "open":
        fill(words.places)
        print(summary(writer()))
        return 0
    if words.command == "trip":
        print(VARIANTS[words.variant].options(run_id=words.key)(words.guest, words.guest, words.city))
        return 0
    if not inspect(writer()).has_table("hotels"):
        sys.exit("there is no agency in this database yet: run `python travel.py open` first")
    return load(words) if words.command == "load" else tell(audit(writer()))


def load(words: argparse.Namespace) -> int:
    """Let guests come, then look into the books."""
    from travel_load import at_rate, in_line, reservations, visits

    before = receipts(writer())
    guests = (visits if words.visits else reservations)(f"reserve_{words.variant}")
    come = at_rate if words.rate else in_line
    results = asyncio.run(come(words.url, guests, words.rate or words.clients, words.count))
    print(results, *results.lost[:3], sep="\n")
    answers = {key: answer for key, answer in results.answers.items() if "receipt" in answer}
    return tell(audit(writer()) + compare(receipts(writer()) - before, answers)) or bool(results.lost)


def tell(wrong: list[str]) -> int:
    """The audit's line; 1 if something is wrong."""
    print(f"audit: {'clean' if not wrong else 'NOT CLEAN'}: {summary(writer())}")
    for line in wrong:
        print(f"* {line}")
    return 1 if wrong else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    opened = commands.add_parser("open", help="make all tables anew")
    opened.add_argument("--places", type=int, default=1_000, help="in each hotel and on each flight (%(default)s)")
    trip = commands.add_parser("trip", help="reserve one trip here, without a gateway")
    trip.add_argument("guest", help="guest0 to guest99")
    trip.add_argument("city", choices=CITIES)
    trip.add_argument("--key", help="give the same again: the same trip, not another one")
    loaded = commands.add_parser("load", help="let guests come, then audit")
    loaded.add_argument("--url", action="append", help="of a gateway; more than once for several of them")
    loaded.add_argument("--rate", type=float, help="guests a second, whether those before are served or not")
    loaded.add_argument("--clients", type=int, default=8, help="without --rate: so many at a time (%(default)s)")
    loaded.add_argument("--count", type=int, default=1_000, help="guests in all (%(default)s)")
    loaded.add_argument("--visits", action="store_true", help="99 in 100 only search, or ask for advice")
    for command in (trip, loaded):
        command.add_argument("--variant", choices=VARIANTS, default="rollback", help="of the trip (%(default)s)")
    commands.add_parser("audit", help="read the books, and say what cannot be")
    words = parser.parse_args()
    if words.command == "load" and not words.url:
        words.url = ["http://127.0.0.1:8000"]
    return words


if __name__ == "__main__":
    sys.exit(main())
