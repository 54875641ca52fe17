"""``exoflow llm``: the multi-LoRA engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from exoflow.cli.failures import WrongUsage, reported
from exoflow.cli.listening import bound_to, bytes_of, check_host, log_requests, need, tokens_from
from exoflow.cli.options import DebugOption, pairs
from exoflow.cli.terminal import Terminal
from exoflow.cli.words import count, size
from exoflow.errors import LLMError
from exoflow.llm import EngineConfig

if TYPE_CHECKING:
    import socket

    from exoflow.http.tokens import Tokens
    from exoflow.llm import Engine
    from exoflow.llm.engine.config import Policy
    from exoflow.llm.engine.queues import Queue
    from exoflow.llm.server.library import Library

_DEFAULT = EngineConfig()
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A directory, a GGUF file, a name of the hub, or smollm2.", show_default=False
    ),
]


def _engine(name: str, help: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Engine", **more)


def serve(
    model: ModelArgument,
    adapters: Annotated[
        Path | None,
        typer.Option(
            "--adapters", metavar="DIR", help="Each sub-directory is an adapter by its name.", file_okay=False
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option("--adapter", metavar="NAME=PATH", help="One more; may be given again.")
    ] = None,
    served_model_name: Annotated[
        str | None, typer.Option("--served-model-name", metavar="NAME", help="Of the base model. (default: as MODEL)")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for a free one.")] = 8000,
    api_keys: Annotated[
        Path | None, typer.Option("--api-keys", metavar="FILE", help="Lines NAME: KEY. (default: $EXOFLOW_API_KEYS)")
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Let anybody ask, from other machines, too.")] = False,
    max_body: Annotated[str, typer.Option("--max-body", metavar="SIZE", help="Of a request, as 64k or 8M.")] = "8M",
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds that answers have to end in, at a stop.")
    ] = 30,
    device: Annotated[str, _engine("--device", "cpu, cuda, cuda:1.")] = _DEFAULT.device,
    dtype: Annotated[str, _engine("--dtype", "float32, bfloat16, float16.")] = _DEFAULT.dtype,
    pages: Annotated[int | None, _engine("--pages", "For KV and adapters together. (default: what fits)")] = None,
    memory_fraction: Annotated[
        float, _engine("--memory-fraction", "Of the memory that is free.")
    ] = _DEFAULT.memory_fraction,
    block: Annotated[int, _engine("--block", "Tokens in a page.")] = _DEFAULT.block,
    max_batch: Annotated[int, _engine("--max-batch", "Sequences that run at once.")] = _DEFAULT.max_batch,
    token_budget: Annotated[int, _engine("--token-budget", "Tokens of a step, at most.")] = _DEFAULT.token_budget,
    max_context: Annotated[
        int | None, _engine("--max-context", "Tokens of prompt and answer. (default: the model's)")
    ] = None,
    max_waiting: Annotated[int, _engine("--max-waiting", "Answers that wait; the next gets 429.")] = (
        _DEFAULT.max_waiting
    ),
    max_rank: Annotated[int, _engine("--max-rank", "Of an adapter.")] = _DEFAULT.max_rank,
    host_cache: Annotated[str, _engine("--host-cache", "Adapters in host memory.", metavar="SIZE")] = "4G",
    prefix_cache: Annotated[
        bool, _engine("--prefix-cache/--no-prefix-cache", "Keep prompts for those that begin alike.")
    ] = _DEFAULT.prefix_cache,
    policy: Annotated[
        str | None,
        _engine("--policy", "fcfs, or deadline: who cannot be in time gets 503, with --fair, too. (default: fcfs)"),
    ] = None,
    slo: Annotated[float, _engine("--slo", "Seconds to the first token, for deadlines.")] = _DEFAULT.slo_s,
    threads: Annotated[int | None, _engine("--threads", "Of torch, on a CPU.")] = None,
    fair: Annotated[
        bool,
        typer.Option(
            "--fair", help="Equal shares for API keys that wait, and for a key's users. (default: first come)"
        ),
    ] = False,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            "--weight", metavar="NAME=W", help="The share of an API key, with --fair: 2 is twice as much. (default: 1)"
        ),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Serve a model and its LoRA adapters to OpenAI's clients: `model` is the adapter's name.

    Adapters are loaded when they are asked for first. Stops at SIGTERM or Ctrl-C when its answers have ended, and
    exits with 0; the second signal ends it at once.
    """
    terminal = Terminal()
    with reported(terminal, debug=debug):
        need("llm", "torch", "transformers", "starlette", "uvicorn", "prometheus_client")
        tokens = tokens_from(api_keys, "--api-keys", "EXOFLOW_API_KEYS")
        check_host(host, safe=bool(tokens) or no_auth, what="use the model", option="--api-keys")
        name = served_model_name or _name_of(model)
        named = _named(adapter, name)
        if fair and policy == "fcfs":
            raise WrongUsage("--policy fcfs serves who came first, and --fair in turns: give one of them")
        queue = _queue(fair, weight, tokens)
        _check_folder(adapters, name)
        try:
            config = EngineConfig(
                device=device, dtype=dtype, pages=pages, memory_fraction=memory_fraction, block=block,
                max_batch=max_batch, token_budget=token_budget, max_context=max_context,
                max_waiting=max_waiting, max_rank=max_rank,
                host_cache_bytes=bytes_of(host_cache, "--host-cache"), prefix_cache=prefix_cache,
                policy=cast("Policy", policy or _DEFAULT.policy), slo_s=slo, threads=threads,
            )  # fmt: skip
        except ValueError as error:
            raise WrongUsage(str(error)) from error
        most = bytes_of(max_body, "--max-body")
        check_model(model)
        if not debug:
            log_requests("exoflow.llm")
        with bound_to(host, port) as bound, _loaded(terminal, model, config, queue) as engine:
            _serve(
                engine, name, bound, tokens, adapters, named,
                any_host=no_auth, max_body=most, grace_s=grace, terminal=terminal,
            )  # fmt: skip


@contextmanager
def _loaded(terminal: Terminal, model: str, config: EngineConfig, queue: Queue | None) -> Iterator[Engine]:
    """The engine, closed at the end."""
    text = f"loading {model}"
    if not terminal.live:
        terminal.say(text)
    with terminal.waiting(text):
        from exoflow.llm import Engine

        try:
            engine = Engine(model, queue=queue, **asdict(config))
        except LLMError as error:  # all that it was told is in the command line
            raise WrongUsage(str(error)) from error
    with engine:
        with terminal.waiting(f"warming up {model}"):
            engine.warm_up()
        yield engine


def _serve(
    engine: Engine, name: str, bound: socket.socket, tokens: Tokens, folder: Path | None, named: Mapping[str, Path],
    *, any_host: bool, max_body: int, grace_s: float, terminal: Terminal,
) -> None:  # fmt: skip
    import asyncio

    from exoflow.http.server import Server, listen
    from exoflow.llm.server.app import Service, make_app
    from exoflow.llm.server.library import Library

    library = Library(engine, name, folder=folder, named=named)
    service = Service(engine, name, library, tokens=tokens, any_host=any_host, max_body=max_body)
    address = listen(bound)

    def ready() -> None:
        terminal.say(f"serving {_shown(engine, name, library, folder)} at {address}")
        if (most := engine.room([])) < engine.max_context:
            terminal.say(
                f"prompt and answer can have {most:,} tokens, of the model's {engine.max_context:,}: see --pages"
            )

    server = Server(make_app(service), service.drain, "answers", grace_s=grace_s, tell=terminal.say, ready=ready)

    async def main() -> None:
        watching = asyncio.create_task(stop_with_engine())
        await server.serve([bound])
        watching.cancel()

    async def stop_with_engine() -> None:
        while engine.error is None:  # noqa: ASYNC110 - the engine's thread knows no loop
            await asyncio.sleep(1)
        server.should_exit = True  # whoever started this process starts it again

    try:
        asyncio.run(main())
    finally:
        library.close()
    if engine.error is not None:
        raise engine.error


def _shown(engine: Engine, name: str, library: Library, folder: Path | None) -> str:
    stats, weights, known = engine.stats(), engine.model.decoder.embedding, len(library.found())
    dtype = str(weights.dtype).removeprefix("torch.")
    adapters = f" with {count(known, 'adapter')} of {folder}" if folder is not None else ""
    memory = f"{stats.pages:,} pages of {engine.config.block} tokens, {size(stats.pages * stats.page_bytes)}"
    return f"{name} ({dtype} on {weights.device}; {memory}){adapters}"


def _name_of(model: str) -> str:
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else path.stem if path.suffix == ".gguf" else model


def check_model(name: str) -> None:
    """Raises WrongUsage: there is no such model. Found out before torch is imported, which takes seconds."""
    from exoflow.llm.engine.models.sources import find_model

    try:
        find_model(name)
    except LLMError as error:
        raise WrongUsage(str(error)) from error


def _named(texts: list[str] | None, base: str) -> dict[str, Path]:
    found = {name: Path(path).expanduser() for name, path in pairs(texts, "--adapter", "NAME=PATH").items()}
    for name, path in found.items():
        if name == base:
            raise WrongUsage(f"--adapter {name}: that is the base model's name; see --served-model-name")
        if not (path / "adapter_config.json").is_file():
            raise WrongUsage(f"--adapter {name}: {path} is no adapter: it has no adapter_config.json")
    return found


def _queue(fair: bool, weight: list[str] | None, tokens: Tokens) -> Queue | None:
    """Who is next; None: who came first."""
    weights = pairs(weight, "--weight", "NAME=W")
    if not fair:
        if weights:
            raise WrongUsage("--weight says how an engine is shared: give --fair, too")
        return None
    from exoflow.llm.fair import VTC

    if unknown := sorted(weights.keys() - tokens.names):
        raise WrongUsage(f"--weight {unknown[0]}: no API key has this name")
    try:
        return VTC(weights=weights)
    except ValueError as error:
        raise WrongUsage(f"--weight: {error}") from error


def _check_folder(folder: Path | None, base: str) -> None:
    if folder is None:
        return
    if not folder.is_dir():
        raise WrongUsage(f"--adapters {folder}: there is no such directory")
    if (folder / "adapter_config.json").is_file():
        raise WrongUsage(f"--adapters {folder}: that is one adapter; give the directory that it lies in")
    if (folder / base / "adapter_config.json").is_file():
        raise WrongUsage(f"{folder / base} has the base model's name: give that another by --served-model-name")
