"""How far a collection is, and what it has cost: a line on a terminal, else a log record for each tenth."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from exoflow.llm.calls.prices import usd
from exoflow.llm.planning.sample import Sample

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """Counts what it is told; a resumed collection is told what was recorded, too."""

    total: int
    done: int = 0
    nano_usd: int = 0

    def add(self, samples: Sequence[Sample]) -> None:
        before, self.done = self.done, self.done + len(samples)
        self.nano_usd += sum(sample.nano_usd for sample in samples)
        if self.done * 10 // self.total > before * 10 // self.total:
            logger.info("collected %s", str(self))  # as it is now

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} samples, ${usd(self.nano_usd):.6f}"


@contextmanager
def shown(total: int) -> Iterator[Progress]:
    """A progress that is on the terminal while the block runs, if there is one."""
    if not sys.stderr.isatty():
        yield Progress(total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress as Bar, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=total)

        class Shown(Progress):
            def add(self, samples: Sequence[Sample]) -> None:
                super().add(samples)
                bar.update(shown, completed=self.done, description=str(self))

        yield Shown(total)
