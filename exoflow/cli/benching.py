"""``exoflow llm bench``: S-LoRA's workload, to an engine here or to any server that speaks OpenAI's protocol."""

from __future__ import annotations

import asyncio
import json
import math
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from exoflow.cli.failures import WrongUsage, reported
from exoflow.cli.listening import need
from exoflow.cli.llm import check_model
from exoflow.cli.making import ranks_of
from exoflow.cli.options import DebugOption, JsonOption
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import count, duration as lasting
from exoflow.errors import LLMError

if TYPE_CHECKING:
    from exoflow.llm.bench.driving import Served, Target
    from exoflow.llm.bench.figures import Figures
    from exoflow.llm.bench.workload import Call
    from exoflow.llm.engine.config import Policy


_ENGINES = (
    "ranks", "folder", "device", "dtype", "pages", "max_batch", "policy", "prefix_cache", "threads"
)  # fmt: skip
"""Options of an engine here."""
_SERVERS = ("models",)
_KEY = "the server wants a key: set $EXOFLOW_API_KEY to one of its own"


def bench(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(metavar="MODEL|URL", help="As of serve; or a server's URL, with /v1.", show_default=False),
    ],
    rate: Annotated[float, typer.Option("--rate", help="Requests a second.")] = 2.0,
    duration: Annotated[float, typer.Option("--duration", help="Seconds in which they arrive.")] = 60.0,
    adapters: Annotated[int, typer.Option("--adapters", min=0, help="How many; 0: the base model alone.")] = 8,
    ranks: Annotated[str, typer.Option("--ranks", metavar="R,R,…", help="Of random adapters, dealt out.")] = "8",
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Take adapters from here, instead of random ones.", show_default=False),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", metavar="A,B,…", help="Names at the URL. (default: what it lists)"),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", help="Of the adapters' power law; 1: uniform.")] = 1.0,
    cv: Annotated[float, typer.Option("--cv", help="Of the gaps between requests; 1: Poisson.")] = 1.0,
    lengths: Annotated[str, typer.Option("--lengths", metavar="A:B", help="Tokens of prompts and answers.")] = "8:512",
    seed: Annotated[int, typer.Option("--seed", help="The same one makes the same requests.")] = 42,
    slo: Annotated[float, typer.Option("--slo", help="Seconds to the first token.")] = 6.0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16.")] = "auto",
    pages: Annotated[int | None, typer.Option("--pages", help="For KV and adapters. (default: what fits)")] = None,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Sequences that run at once.")] = 64,
    policy: Annotated[str, typer.Option("--policy", help="fcfs, or deadline.")] = "fcfs",
    prefix_cache: Annotated[
        bool, typer.Option("--prefix-cache", help="Keep it on: all prompts are alike, so it flatters.")
    ] = False,
    threads: Annotated[int | None, typer.Option("--threads", help="Of torch, on a CPU.")] = None,
    json_output: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure throughput, first tokens and user satisfaction under S-LoRA's synthetic workload.

    Requests come when the workload says, whether earlier ones have been answered or not. A key for a URL is taken from
    $EXOFLOW_API_KEY or $OPENAI_API_KEY.
    """
    terminal = Terminal(json_output=json_output)
    with reported(terminal, debug=debug):
        is_url = target.startswith(("http://", "https://"))
        need(*(("calls,plan", "aiohttp", "numpy") if is_url else ("llm", "numpy", "torch", "transformers")))
        _check_given(context, is_url)
        calls = _calls(rate, duration, adapters, alpha, cv, lengths, seed)
        if not 0 < slo < math.inf:
            raise WrongUsage(f"--slo {slo:g}: it must be positive")
        if is_url:
            served = _over_http(terminal, target, models, adapters, calls)
        else:
            from exoflow.llm import EngineConfig

            try:
                config = EngineConfig(
                    device=device, dtype=dtype, pages=pages, max_batch=max_batch, policy=_policy(policy), slo_s=slo,
                    prefix_cache=prefix_cache, threads=threads, max_waiting=max(4096, len(calls)),
                )  # fmt: skip
            except ValueError as error:
                raise WrongUsage(str(error)) from error
            check_model(target)
            served = _in_process(terminal, target, config, folder, adapters, ranks, calls)
        from exoflow.llm.bench.figures import figures_of

        about = {
            "model": target,
            "workload": {
                "rate": rate, "duration_s": duration, "lengths": lengths, "alpha": alpha, "cv": cv, "seed": seed,
                "adapters": adapters, "models": models, "folder": str(folder) if folder else None,
                "ranks": None if is_url or folder or not adapters else ranks,
            },
        }  # fmt: skip
        of = f"of {folder}" if folder else "as listed" if is_url else f"of rank {ranks}"
        who = f"{count(adapters, 'adapter')} {of}" if adapters else "no adapters"
        said = (
            f"{target}, {models or who}\n{rate:g} requests/s for {duration:g} s, {lengths} tokens, alpha {alpha:g},"
            f" cv {cv:g}, seed {seed}"
        )
        _report(terminal, about, said, figures_of(served, slo), served)
        if all(each.error for each in served):
            raise typer.Exit(1)


def _check_given(context: typer.Context, is_url: bool) -> None:
    """Nothing that was written is passed over."""
    for name in _ENGINES if is_url else _SERVERS:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            whose = "an engine here: a server has its own" if is_url else "a server: an engine here has --folder"
            raise WrongUsage(f"--{name.replace('_', '-')} is of {whose}")


def _calls(rate: float, duration: float, adapters: int, alpha: float, cv: float, lengths: str, seed: int) -> list[Call]:
    least, _, most = lengths.partition(":")
    if not (least.isdecimal() and most.isdecimal()):
        raise WrongUsage(f"--lengths {lengths}: write two numbers, as 8:512")
    from exoflow.llm.bench.workload import synthetic

    for option, value in (("--rate", rate), ("--duration", duration), ("--alpha", alpha), ("--cv", cv)):
        if not 0 < value < math.inf:
            raise WrongUsage(f"{option} {value:g}: it must be positive")
    if not 0 < int(least) < int(most):
        raise WrongUsage(f"--lengths {lengths}: they must rise, from 1 at least")
    calls = synthetic(rate, duration, max(1, adapters), alpha=alpha, cv=cv, lengths=(int(least), int(most)), seed=seed)
    if not calls:
        raise WrongUsage(f"--rate {rate} for --duration {duration} makes no request")
    return calls


def _policy(name: str) -> Policy:
    if name not in ("fcfs", "deadline"):
        raise WrongUsage(f"--policy {name}: there are fcfs and deadline")
    return name  # type: ignore[return-value]  # just looked at


def _over_http(
    terminal: Terminal, url: str, models: str | None, adapters: int, calls: Sequence[Call]
) -> Sequence[Served]:
    from exoflow.llm.bench.driving import OverHttp

    key = os.environ.get("EXOFLOW_API_KEY") or os.environ.get("OPENAI_API_KEY")
    names = models.split(",") if models else _listed(url, key, adapters)

    async def run() -> Sequence[Served]:
        asked = OverHttp(url, names, key)
        try:
            return await _driven(terminal, asked, calls)
        finally:
            await asked.close()

    try:
        return asyncio.run(run())
    except LLMError as error:
        raise LLMError(f"{error}: {_KEY}" if str(error).startswith("401") else str(error)) from error


def _listed(url: str, key: str | None, adapters: int) -> list[str]:
    """The server's adapters, which have a parent; the base model where none is wanted."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url.rstrip('/')}/models", headers=headers)) as answer:
            found = json.load(answer)["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 401:
            raise WrongUsage(f"{url}: {_KEY}") from error
        raise WrongUsage(
            f"{url}/models tells no models ({error}): is it a server's URL, with /v1? See --models"
        ) from error
    names = [str(each["id"]) for each in found if bool(each.get("parent")) == (adapters > 0)]
    if not names or len(names) < adapters:
        raise WrongUsage(f"--adapters {adapters}: the server lists {len(names)} of that kind; see --models")
    return names[: adapters or 1]


def _in_process(
    terminal: Terminal,
    model: str,
    config: object,
    folder: Path | None,
    adapters: int,
    ranks: str,
    calls: Sequence[Call],
) -> Sequence[Served]:
    from exoflow.llm import Engine
    from exoflow.llm.bench.driving import InProcess

    terminal.say(f"loading {model}")
    with terminal.waiting(f"loading {model}"):
        try:
            engine = Engine(model, **asdict(config))  # type: ignore[call-overload]
        except LLMError as error:  # all that it was told is in the command line
            raise WrongUsage(str(error)) from error
    with engine, _folders(terminal, engine.model.decoder.geometry, folder, adapters, ranks) as folders:
        for path in folders:
            engine.load_adapter(path.name, path)
        return asyncio.run(_driven(terminal, InProcess(engine, [path.name for path in folders]), calls))


@contextmanager
def _folders(
    terminal: Terminal, geometry: object, folder: Path | None, adapters: int, ranks: str
) -> Iterator[list[Path]]:
    if folder is not None:
        found = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
        if len(found) < adapters:
            raise WrongUsage(f"--adapters {adapters}: {folder} holds {len(found)}")
        yield found[:adapters]
        return
    from exoflow.llm.bench.adapters import make_adapters

    dealt = ranks_of(ranks)
    with tempfile.TemporaryDirectory(prefix="exoflow-bench-") as place:
        with terminal.waiting(f"making {count(adapters, 'random adapter')}"):
            made = make_adapters(place, geometry, adapters, dealt)  # type: ignore[arg-type]
        yield list(made.values())


async def _driven(terminal: Terminal, target: Target, calls: Sequence[Call]) -> Sequence[Served]:
    """One call to warm up, then all of them, with a line about how far they are."""
    from exoflow.llm.bench.driving import drive

    ended = 0
    async for _ in target.answer(calls[0]):
        break
    if not terminal.live:
        terminal.say(f"{count(len(calls), 'request')} in {lasting(calls[-1].at_s)}")
        return await drive(target, calls)
    with terminal.err.status("", spinner="dots") as status:

        def told(_: Served) -> None:
            nonlocal ended
            ended += 1
            status.update(f"{ended} of {len(calls)} answered")

        return await drive(target, calls, told)


def _report(
    terminal: Terminal, about: Mapping[str, object], said: str, figures: Figures, served: Sequence[Served]
) -> None:
    if terminal.json_output:
        terminal.print_json({**about, **asdict(figures)})
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, text in _lines(figures):
        table.add_row(name, text)
    terminal.out.print(said, markup=False, soft_wrap=True)
    terminal.out.print(table)
    errors = sorted({each.error for each in served if each.error})
    for error in errors[:5]:
        terminal.say(f"failed: {error}")


def _lines(figures: Figures) -> Iterator[tuple[str, str]]:
    def seconds(value: float | None) -> str:
        return "none" if value is None else f"{value:.3f} s"

    yield "requests", f"{figures.requests:,} ({figures.failed:,} failed)"
    yield "took", seconds(figures.seconds)
    yield "throughput", f"{figures.requests_per_s:.2f} requests/s"
    yield "output", f"{figures.output_tokens_per_s:,.0f} tokens/s"
    yield "with prompts", f"{figures.total_tokens_per_s:,.0f} tokens/s"
    yield "first token, median", seconds(figures.first_token_p50_s)
    yield "first token, p99", seconds(figures.first_token_p99_s)
    yield "between tokens, median", seconds(figures.per_token_p50_s)
    yield "whole answer, median", seconds(figures.latency_p50_s)
    yield "whole answer, p99", seconds(figures.latency_p99_s)
    yield f"first token within {figures.slo_s:g} s", f"{figures.slo_attainment:.1%}"
    yield "user satisfaction", f"{figures.user_satisfaction:.3f}"
