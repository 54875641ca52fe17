"""Tensor parallelism: the first rank schedules and reads adapters, the others follow.

A step is told to the others as the arrays of its batch, an adapter as its pages of their part; both through a pipe, in
order. Between the ranks of a step nothing is sent but two sums for each layer, those that a base model needs: an
adapter adds none (see ``adapters/sharding.py``).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import BinaryIO, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # not in its __all__

from exoflow.errors import LLMError
from exoflow.llm.engine.adapters.host import HostAdapter
from exoflow.llm.engine.adapters.layout import AdapterLayout
from exoflow.llm.engine.adapters.sharding import Shard
from exoflow.llm.engine.batch import Batch, make_batch
from exoflow.llm.engine.config import EngineConfig
from exoflow.llm.engine.models.decoder import Decoder
from exoflow.llm.engine.models.loading import load_model
from exoflow.llm.engine.models.sharding import shard
from exoflow.llm.engine.plan import Chunk
from exoflow.llm.engine.residency import Load
from exoflow.llm.engine.runner import Runner

WAIT = timedelta(minutes=10)
"""For another rank, at a sum."""


@dataclass(frozen=True, slots=True)
class Start:
    """The first that a follower hears."""

    model: str
    config: EngineConfig
    part: Shard
    port: int
    """Of the store where the ranks meet, on this machine."""
    device: torch.device
    dtype: torch.dtype
    pages: int
    threads: int


@dataclass(frozen=True, slots=True)
class Filled:
    """An adapter for a slot; ``content``: its pages of the follower's part."""

    slot: int
    layout: AdapterLayout
    pages: tuple[int, ...]
    scale: Tensor
    content: Tensor


Message = Start | Filled | Batch


class Leader:
    """The first rank. Stands in for a ``Runner``: what it computes, all compute.

    Args:
        decoder: the whole, on the CPU.
        pages: how many fit, told this rank's part of the decoder.

    Raises:
        LLMError: another rank could not start.
    """

    def __init__(
        self,
        model: str,
        decoder: Decoder,
        config: EngineConfig,
        device: torch.device,
        pages: Callable[[Decoder], int],
    ) -> None:
        ranks = config.tensor_parallel
        store = TCPStore("localhost", 0, None, is_master=True, wait_for_workers=False, timeout=WAIT)
        mine = shard(decoder, Shard(0, ranks), device_of(device, 0))
        count = pages(mine)
        self._followers = [_Follower() for _ in range(1, ranks)]
        try:
            for rank, follower in enumerate(self._followers, 1):
                where, threads = device_of(device, rank), torch.get_num_threads()
                follower.tell(
                    Start(model, config, Shard(rank, ranks), store.port, where, decoder.embedding.dtype, count, threads)
                )
            for follower in self._followers:
                follower.wait()
            self._runner = Runner(replace(mine, complete=summed(store, Shard(0, ranks), device)), config, count)
        except BaseException:
            self.close()
            raise
        self._block = config.block
        self.decoder, self.device = self._runner.decoder, self._runner.device
        self.pool, self.tables = self._runner.pool, self._runner.tables
        self.pages, self.computes_meanwhile = self._runner.pages, self._runner.computes_meanwhile

    def run(self, chunks: Sequence[Chunk], slots: Sequence[int]) -> Tensor:
        """As ``Runner.run``."""
        batch = make_batch(chunks, slots, self._block, torch.device("cpu"))
        message = pickle.dumps(batch)
        for follower in self._followers:
            follower.send(message)
        return self._runner.compute(moved(batch, self.device))

    def warm_up(self) -> None:
        """As ``Runner.warm_up``; steps of several ranks are no graphs."""

    def filled(self, load: Load, adapter: HostAdapter) -> None:
        """Give the others their parts of an adapter."""
        for follower, content in zip(self._followers, adapter.others, strict=True):
            follower.tell(Filled(load.slot, adapter.layout, load.pages, adapter.scale, content))

    def close(self) -> None:
        """The others end, and have ended."""
        for follower in self._followers:
            follower.close()


class _Follower:
    """A process that has another part, as the first rank sees it."""

    def __init__(self) -> None:
        # Not by multiprocessing: it would run the user's main module again.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-c", f"from {__name__} import main; main()"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def tell(self, message: Message) -> None:
        self.send(pickle.dumps(message))

    def send(self, message: bytes) -> None:
        assert self._process.stdin is not None
        view = memoryview(message)
        try:
            while view:
                view = view[self._process.stdin.write(view) :]
        except OSError as error:
            raise LLMError(f"a rank has ended: {error} (its own error is on stderr)") from error

    def wait(self) -> None:
        """Until it has loaded its part."""
        assert self._process.stdout is not None
        if not self._process.stdout.read(1):
            raise LLMError("a rank could not start: its own error is on stderr")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:  # it waits for a sum that will never be complete
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def follow(told: BinaryIO, say: Callable[[bytes], object]) -> None:
    """Do what the first rank says, until it says no more."""
    start = pickle.load(told)
    assert isinstance(start, Start)
    torch.set_num_threads(start.threads)
    if start.device.type == "cuda":
        torch.cuda.set_device(start.device)  # kernels are launched on the device that is set
    decoder = shard(load_model(start.model, torch.device("cpu"), start.dtype).decoder, start.part, start.device)
    say(b"!")
    store = TCPStore("localhost", start.port, None, is_master=False, timeout=WAIT)
    decoder = replace(decoder, complete=summed(store, start.part, start.device))
    runner = Runner(decoder, start.config, start.pages)
    while True:
        try:
            message = pickle.load(told)
        except (EOFError, pickle.UnpicklingError):  # it has closed, or ended
            return
        if isinstance(message, Filled):
            with torch.inference_mode():
                runner.pool[:, list(message.pages)] = message.content.to(runner.device)
            runner.tables.fill(message.slot, message.layout, message.pages, message.scale)
        else:
            assert isinstance(message, Batch)
            runner.compute(moved(message, runner.device))


def main() -> None:
    """A follower's process: what it is told comes by stdin, and it says one thing by stdout."""
    told = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever is printed is no answer
    follow(told, lambda answer: os.write(answers, answer))


def summed(store: TCPStore, part: Shard, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The sum over all ranks, in place: NCCL on GPUs, gloo elsewhere. In a group of its own: others that this process
    may have are left alone.
    """
    if device.type == "cuda":
        made: object = dist.ProcessGroupNCCL(store, part.rank, part.ranks, dist.ProcessGroupNCCL.Options())
    else:
        made = dist.ProcessGroupGloo(store, part.rank, part.ranks, timeout=WAIT)
    group = cast("dist.ProcessGroup", made)  # it is one at run time

    def complete(partial: Tensor) -> Tensor:
        group.allreduce([partial]).wait()
        return partial

    return complete


def device_of(device: torch.device, rank: int) -> torch.device:
    return device if device.type == "cpu" else torch.device(device.type, (device.index or 0) + rank)


def moved(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    parts = {field.name: getattr(batch, field.name) for field in fields(batch)}
    sent = {name: part.to(device) for name, part in parts.items() if torch.is_tensor(part)}
    return replace(batch, **sent)  # type: ignore[arg-type]  # the arrays are left
