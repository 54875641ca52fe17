"""SERVERLESS.md and serverless.png out of the raw results of serverless.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from figures import number
from report import rows

DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL 18"}
VARIANTS = {
    "sync": "1. all sync",
    "parallel": "2. parallel",
    "async": "3. async",
    "rollback": "4. async with rollback",
    "transactional": "5. transactional",
}
SERVICES = {
    "plain": "without durability",
    **{name: f"exoflow, {title}" for name, title in VARIANTS.items()},
    "dbos": "DBOS 3.4.0",
}

THROUGHPUT_GOAL, LATENCY_GOAL = 5.0, 2.0

METHOD = """\
`python benchmarks/serverless.py` wrote this page, in one run, on one machine that was doing nothing else that we
know of. The [travel agency](../examples/travel) reserves a room and a seat and charges for both: eight calls, five of
which write to the agency's database. Every service is one process with a fresh database, behind uvicorn; the guests
are one other process. *Latency*: one guest at a time. *Rate*: the highest at which 99 of 100 reservations take less
than 100 ms, by bisection; guests come at random (a Poisson process), and the time runs from when they meant to come.
*Of eight*: eight guests at a time, each asks when the one before it is served, however long that takes.
*CPU*: what the service's own process uses for a reservation with eight guests at a time; a database server is not in
it. The books were audited behind each service.

*Without durability*: the same functions, called one after the other in a thread, behind starlette. *DBOS*: the trip
is a workflow, each call a step, the request's key the workflow's id; the front is the same; 8 threads; its own
database is of the same kind as the agency's (on SQLite with WAL and `synchronous=NORMAL`, which is faster than its
default, and promises less at a power cut)."""

WHERE_IT_GOES = """\
A trip waits for 7 (async, rollback), 9 (parallel), 10 (sync) or 11 (transactional) writes of the journal to be
durable, one behind the other, and its key for three of the claim: 0.16 ms each and 0.85 ms here, when the disk has
nothing else to do. So about 2.5 ms of each latency are the disk's, beside the 2.7 ms of the agency's own five
transactions. The rest is the interpreter: of a profile with 16 guests (py-spy, rollback) 16 % are SQLAlchemy, 14 %
uvicorn and starlette, 10 % the codec, 9.5 % driver and kernel, 9 % asyncio, 7 % the journal; no place stands out, and
threads pass the lock 80 to 110 times a trip, where the service without durability does so 14 times. Five times DBOS's
rate would leave a trip about 4.4 ms of processor, of which the agency's own work and HTTP take 3.

The machine changed its speed by up to 1.9 times while this ran (one service took 9 ms of processor in one run and 18
in another), and services are measured one after another: hold a row against its neighbours rather than against the
far end of the table."""


def write_report(results: dict[str, Any], folder: Path) -> None:
    """Write the page and, where matplotlib is installed, the picture."""
    try:
        draw(results, folder / "serverless.png")
    except ImportError:
        print("no matplotlib: serverless.png is left as it is")
    told = {**results["machine"], **{f"version of {name}": value for name, value in results["versions"].items()}}
    parts = [
        "# A service that never double-books: what it costs\n",
        METHOD + "\n",
        "\n".join(f"* {name}: {value}" for name, value in told.items()) + "\n",
        "![latency and rate of each variant, DBOS and the service without durability](serverless.png)\n",
        *(f"## {title}\n\n{table(kind, results)}" for kind, title in DATABASES.items() if kind in results["results"]),
        "## Where the time goes\n",
        WHERE_IT_GOES + "\n",
        "## What falls short\n",
        shortfalls(results),
    ]
    (folder / "SERVERLESS.md").write_text("\n".join(parts))
    print("wrote SERVERLESS.md")


def table(kind: str, results: dict[str, Any]) -> str:
    """All services on one kind of database."""
    found = results["results"][kind]
    plain, dbos = found.get("plain"), found.get("dbos")
    lines = []
    for name, figures in found.items():
        times = f"{figures['p50_ms'] / plain['p50_ms']:.1f}×" if plain else "–"
        better = f"{figures['per_s'] / dbos['per_s']:.1f}×" if dbos and dbos["per_s"] else "–"
        lines.append(
            [
                SERVICES[name],
                number(figures["p50_ms"]),
                number(figures["p99_ms"]),
                times,
                number(figures["per_s"]),
                better,
                number(figures["crowd_per_s"]),
                number(figures["cpu_ms"]),
            ]
        )
    header = [
        "service",
        "p50 ms",
        "p99 ms",
        "p50 against no durability",
        "a second",
        "rate against DBOS",
        "a second, of eight",
        "CPU ms",
    ]
    return rows(header, lines)


def shortfalls(results: dict[str, Any]) -> str:
    """Each goal that a variant misses."""
    lines = []
    for kind, found in results["results"].items():
        for name, title in VARIANTS.items():
            if not {name, "plain", "dbos"} <= found.keys():
                continue
            slower = found[name]["p50_ms"] / found["plain"]["p50_ms"]
            faster = found[name]["per_s"] / found["dbos"]["per_s"] if found["dbos"]["per_s"] else float("inf")
            if slower > LATENCY_GOAL:
                lines.append(f"* {DATABASES[kind]}, {title}: p50 {slower:.1f}× no durability; goal ≤ {LATENCY_GOAL:g}×")
            if faster < THROUGHPUT_GOAL:
                lines.append(f"* {DATABASES[kind]}, {title}: {faster:.1f}× DBOS's rate; goal ≥ {THROUGHPUT_GOAL:g}×")
    lines += [f"* Not measured: {why}" for why in results["errors"]]
    return "\n".join(lines or ["Every goal is reached."]) + "\n"


def draw(results: dict[str, Any], path: Path) -> None:
    """A row for each database: on the left latency, on the right the rate."""
    import matplotlib as mpl
    from chart import INK, LIMIT_COLOUR, OUR_COLOUR, PEER_COLOUR, bars
    from matplotlib.figure import Figure

    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK})
    kinds = [kind for kind in DATABASES if kind in results["results"]]
    canvas = Figure(figsize=(11, 0.9 + 2.9 * len(kinds)), layout="constrained", facecolor="white")
    panels = canvas.subplots(len(kinds), 2, squeeze=False)
    for row, kind in zip(panels, kinds, strict=True):
        found = results["results"][kind]
        names = [name for name in SERVICES if name in found]
        colours = [{"plain": LIMIT_COLOUR, "dbos": PEER_COLOUR}.get(name, OUR_COLOUR) for name in names]
        for axis, key, title in zip(
            row,
            ("p50_ms", "per_s"),
            ("latency, ms: p50, and a line to p99", "reservations a second, p99 < 100 ms"),
            strict=True,
        ):
            values = [found[name][key] for name in names]
            ends = [found[name]["p99_ms"] for name in names] if key == "p50_ms" else values
            labels = [SERVICES[name] for name in names] if key == "p50_ms" else [""] * len(names)
            bars(axis, labels, values, ends, colours)
            axis.set_title(f"{DATABASES[kind]}: {title}", loc="left", size=10, weight="bold")
    canvas.suptitle("Reserving a trip: what durability costs, in one run", x=0.012, ha="left", size=13, weight="bold")
    canvas.savefig(path, dpi=150)
    print(f"wrote {path.name}")
