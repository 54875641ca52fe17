"""A store in memory whose every operation is a point where another process goes on, dies, or the power fails.

Actors are threads that pass one baton, so a run is a function of its seed. A killed process loses nothing that it wrote
(the page cache outlives it); a power failure keeps a random beginning of what was not synced, perhaps zeros behind it.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from exoflow.errors import Conflict, Fenced, RunIsLive, RunNotFound, StorageError
from exoflow.journal import Journal, Kind
from exoflow.journal.gc import collect
from exoflow.journal.records import value_names
from exoflow.protocols import Buffer, Record


class Killed(BaseException):
    """SIGKILL."""


@dataclass
class Thing:
    data: bytes
    synced: int
    holder: Actor | None = None


@dataclass
class Actor:
    number: int
    script: Callable[[Actor], None]
    gate: threading.Lock = field(default_factory=threading.Lock)
    alive: bool = True
    done: bool = False
    stopped: int = 0
    """SIGSTOP: others act for so many steps, and may take it for dead."""
    journal: Journal | None = None


class World:
    def __init__(
        self, seed: int, *, grows: bool, bucket: bool = False, kill: float = 0.004, power: float = 0.3
    ) -> None:
        self.random = random.Random(seed)
        self.grows = grows
        self.bucket = bucket
        self.clock_s = 0.0
        self.flying: list[tuple[str, bytes]] = []
        """Writes whose senders were told that they failed, and that may still land."""
        self.late = 0
        self.collected = 0
        self.kill = kill
        self.power = power
        self.things: dict[str, Thing] = {}
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.finished = threading.Lock()
        self.broken: list[str] = []
        self.acked: dict[str, list[str]] = defaultdict(list)
        self.owners: dict[tuple[str, int], int] = {}
        self.writers: dict[str, tuple[int, int]] = {}
        self.generation = 0
        self.droppable: set[str] = set()
        self.unique = 0
        self.acknowledged = self.takeovers = 0
        self.budget = 3000

    def play(self, scripts: list[Callable[[Actor], None]]) -> None:
        """Run the actors until each has ended or was killed."""
        self.generation += 1
        self.actors = [Actor(n, script) for n, script in enumerate(scripts, len(self.actors))]
        self.finished.acquire()
        threads = [threading.Thread(target=self._act, args=(actor,)) for actor in self.actors]
        for actor, thread in zip(self.actors, threads, strict=True):
            actor.gate.acquire()
            thread.start()
        self._pass_baton()
        self.finished.acquire()
        self.finished.release()
        for thread in threads:
            thread.join()

    def _act(self, actor: Actor) -> None:
        actor.gate.acquire()
        try:
            if actor.alive:
                actor.script(actor)
        except (Killed, Fenced, StorageError):
            pass
        except BaseException as error:  # noqa: BLE001  whatever it is, the test must see it
            self.broken.append(f"actor {actor.number}: {error!r}")
        actor.alive, actor.done = False, True
        if actor.journal is not None:
            actor.journal._closed = True
        self._pass_baton()

    def _pass_baton(self) -> None:
        waiting = [actor for actor in self.actors if not actor.done]
        if not waiting:
            self.finished.release()
            return
        self.current = self._choose(waiting)
        self.current.gate.release()

    def _choose(self, waiting: list[Actor]) -> Actor:
        for actor in waiting:
            actor.stopped = max(0, actor.stopped - 1)
        awake = [actor for actor in waiting if not actor.stopped]
        return self.random.choice(awake or waiting)

    def step(self) -> Actor:
        """Somebody else may act here; whoever acts may die here."""
        actor = self.current
        assert actor is not None
        self.land()
        self.budget -= 1
        if self.budget < 0:
            raise Killed
        if self.bucket and self.random.random() < 0.02:
            actor.stopped = self.random.randint(20, 200)
        if actor.stopped or self.random.random() < 0.5:
            waiting = [each for each in self.actors if not each.done]
            other = self._choose(waiting)
            if other is not actor:
                self.current = other
                other.gate.release()
                actor.gate.acquire()
        if not actor.alive or self.random.random() < self.kill:
            actor.alive = False
            raise Killed
        return actor

    def sleep(self, seconds: float) -> None:
        """Others act for a while: whoever listens for a beat may hear one, or sleep through a zombie's silence."""
        self.clock_s += seconds
        for _ in range(3):
            self.step()

    def land(self) -> None:
        """A write that was on its way arrives now, or never."""
        if self.flying and self.random.random() < 0.3:
            name, data = self.flying.pop(self.random.randrange(len(self.flying)))
            if name not in self.things:
                self.things[name] = Thing(data, len(data))
                self.late += 1

    def fail_power(self) -> None:
        for thing in self.things.values():
            lost = len(thing.data) - thing.synced
            if lost:
                kept = thing.synced + self.random.randint(0, lost)
                zeros = 0
                if self.random.random() < 0.5:  # the new size was there, but not all sectors
                    kept = max(thing.synced, kept // 512 * 512)
                    zeros = len(thing.data) - kept if len(thing.data) - kept >= 16 else 0
                thing.data = thing.data[:kept] + bytes(zeros)
                thing.synced = len(thing.data)

    def owned(self, run_id: str, epoch: int, actor: Actor) -> None:
        if self.owners.setdefault((run_id, epoch), actor.number) != actor.number:
            self.broken.append(f"epoch {epoch} of {run_id} has two owners")

    def begin_again(self, run_id: str) -> None:
        """The id was free: nothing had been recorded under it, or gc has dropped the run."""
        if self.acked[run_id] and run_id not in self.droppable:
            self.broken.append(f"{run_id} was given away although {self.acked[run_id]} were acknowledged")
        if run_id in self.droppable:
            self.acked[run_id] = []
            self.owners = {key: owner for key, owner in self.owners.items() if key[0] != run_id}
            self.droppable.discard(run_id)

    def check_values(self, records: tuple[Record, ...], where: str) -> None:
        gone = [name for record in records for name in value_names(record) if name not in self.things]
        if gone:
            self.broken.append(f"{where}: {gone} are named and gone")

    def check_complete(self, run_id: str, marks: list[str], where: str) -> None:
        missing = [mark for mark in self.acked[run_id] if mark not in marks]
        writers = {self.writers[mark] for mark in marks}
        in_order = all(by == sorted(by) for by in ([m for m in marks if self.writers[m] == w] for w in writers))
        if not in_order or len(set(marks)) < len(marks):
            self.broken.append(f"{where}: {run_id} has records out of order or twice: {marks}")
        if missing:
            self.broken.append(f"{where}: {run_id} lost {missing[:3]} of {len(self.acked[run_id])}")


class SimStore:
    """The world as one process sees it: objects only."""

    shared = False
    url = "sim://"

    def __init__(self, world: World) -> None:
        self.world = world

    def create(self, name: str, *parts: Buffer) -> bool:
        world = self.world
        world.step()
        fate = world.random.random()
        data = b"".join(parts)
        if fate < (0.03 if world.bucket else 0.01):
            if world.bucket and world.random.random() < 0.7:
                world.flying.append((name, data))
            raise StorageError("the request was lost")
        if name in world.things:
            return False
        world.things[name] = Thing(data, len(data))
        if fate > 0.99 and not world.grows:
            raise StorageError("the response was lost")
        return True

    def read(self, name: str) -> memoryview:
        self.world.step()
        if name not in self.world.things:
            raise FileNotFoundError(name)
        return memoryview(self.world.things[name].data)

    def read_range(self, name: str, start: int, size: int | None = None) -> bytes:
        return bytes(self.read(name)[start : None if size is None else start + size])

    def exists(self, name: str) -> bool:
        self.world.step()
        return name in self.world.things

    def list(self, prefix: str) -> list[str]:
        self.world.step()
        return sorted(name for name in self.world.things if name.startswith(prefix + "/"))

    def delete(self, name: str) -> None:
        self.world.step()
        self.world.things.pop(name, None)


class SimBucket(SimStore):
    """The same for processes that share no memory: they hear of each other by beats, and name objects in order."""

    shared = True


class SimSlot:
    def __init__(self, world: World, name: str, thing: Thing) -> None:
        self.world, self.name, self.thing, self.failed = world, name, thing, False

    @property
    def size(self) -> int:
        return len(self.thing.data)

    def append(self, data: Buffer) -> None:
        random = self.world.random
        self.world.step()
        assert not self.failed
        if random.random() < 0.01:
            self.thing.data += bytes(data)[: random.randint(0, len(data))]
            self.failed = True
            raise StorageError("the disk is full")
        half = random.randint(0, len(data)) if random.random() < 0.05 else len(data)
        self.thing.data += bytes(data)[:half]
        if half < len(data):
            self.world.step()
            self.thing.data += bytes(data)[half:]

    def sync(self) -> None:
        self.world.step()
        assert not self.failed
        if self.world.random.random() < 0.02:
            self.failed = True
            raise StorageError("the disk failed")
        self.thing.synced = len(self.thing.data)

    def close(self) -> None:
        self.thing.holder = None


class SimSlotStore(SimStore):
    """The same with slots that grow and locks that fall with their process."""

    def create_slot(self, name: str, first: Buffer) -> SimSlot | None:
        actor = self.world.step()
        if name in self.world.things:
            return None
        thing = Thing(bytes(first), len(first), actor)
        self.world.things[name] = thing
        return SimSlot(self.world, name, thing)

    def lock_holders(self, name: str) -> tuple[int, ...]:
        self.world.step()
        thing = self.world.things.get(name)
        held = thing is not None and thing.holder is not None and thing.holder.alive
        return (thing.holder.number,) if held else ()


def open_store(world: World) -> SimStore:
    return (SimSlotStore if world.grows else SimBucket if world.bucket else SimStore)(world)


def open_journal(world: World, actor: Actor) -> Journal:
    store = open_store(world)
    entropy = random.Random(world.random.getrandbits(64)).getrandbits
    size = world.random.choice([600, 64 << 20])
    actor.journal = Journal(store, process_info=actor.number, entropy=entropy, linger_s=None, slot_max_bytes=size)
    return actor.journal


def work(world: World, actor: Actor, run_id: str, run: int, first: tuple[object, ...] | None) -> None:
    """Record marks in the run, waiting now and then; end it, perhaps."""
    journal = actor.journal
    assert journal is not None
    if first is not None:
        journal.append(first)
    queued: list[str] = []
    ends = world.random.random() < 0.5
    for n in range(count := world.random.randint(1, 8)):
        world.unique += 1
        mark = f"m{world.unique:05}"
        world.writers[mark] = (world.generation, actor.number)
        kind = Kind.ENDED if ends and n == count - 1 else Kind.SAVED
        if kind == Kind.ENDED:
            world.droppable.add(run_id)
        position = journal.append((kind, run, mark, large_value(world, journal, mark)))
        queued.append(mark)
        if world.bucket and world.random.random() < 0.3:
            beat(world, journal)
        if n == count - 1 or world.random.random() < 0.5:
            journal.wait(position)
            world.acked[run_id] += queued
            world.acknowledged += len(queued)
            queued = []
            check_unsealed(world, actor)
    if world.random.random() < 0.3:
        journal.close()


def large_value(world: World, journal: Journal, mark: str) -> object:
    """What a record says: something, or where its value lies, which whoever computed it has stored before."""
    if world.random.random() < 0.8:
        return "x" * world.random.choice([0, 5, 700])
    name = f"values/{journal.name}/{mark}"
    assert open_store(world).create(name, b"value")
    return ["@", name, 5]


def beat(world: World, journal: Journal) -> None:
    """What the background thread does. A zombie that wakes hears here that it was fenced, or when it next writes."""
    world.clock_s += 1.0
    journal._beat()


def check_unsealed(world: World, actor: Actor) -> None:
    """Nothing is acknowledged in a journal behind a stranger's slot."""
    assert actor.journal is not None
    if not world.grows:
        return  # there, what is below the seal counts: it may stand before the owner hears that its create succeeded
    name = f"journals/{actor.journal.name}/{actor.journal._slots.number + 1}"
    if name in world.things:
        world.broken.append(f"{name} stood there when a record was acknowledged")


def starts(world: World, run_id: str | None) -> Callable[[Actor], None]:
    def script(actor: Actor) -> None:
        journal = open_journal(world, actor)
        if run_id is None:
            name, epoch, run = journal.new_run("flow")
        else:
            claimed = journal.claim(run_id)
            if not claimed.ours:
                return
            name, epoch, run = run_id, claimed.epoch, claimed.run
            world.begin_again(run_id)
        world.owned(name, epoch, actor)
        work(world, actor, name, run, (Kind.START, run, name, epoch))

    return script


def adopts(world: World, run_ids: list[str]) -> Callable[[Actor], None]:
    def script(actor: Actor) -> None:
        journal = open_journal(world, actor)
        for run_id in world.random.sample(run_ids, len(run_ids)):
            try:
                adopted = journal.adopt(run_id, takeover=world.random.random() < 0.5)
            except (RunIsLive, RunNotFound):
                continue
            world.takeovers += 1
            world.owned(run_id, adopted.epoch, actor)
            marks = [str(record[2]) for record in adopted.records if record[0] != Kind.START]
            if world.bucket and any(run == run_id and epoch > adopted.epoch for run, epoch in world.owners):
                # Its Adopted lies below a seal; it hears so late that another goes on already. Its next write fails
                marks = world.acked[run_id]
            world.check_complete(run_id, marks, f"epoch {adopted.epoch}")
            world.check_values(adopted.records, f"epoch {adopted.epoch} of {run_id}")
            work(world, actor, run_id, adopted.run, None)

    return script


def collects(world: World, *, drop: bool) -> Callable[[Actor], None]:
    def script(actor: Actor) -> None:
        if not world.grows and not world.bucket:
            return
        store = open_store(world)
        try:
            done = collect(store, lambda run: not drop)
            world.collected += len(done.slots) + len(done.values)
        except Conflict:
            return

    return script


def check(world: World) -> None:
    """At the end, all that was acknowledged must be found."""
    world.kill, world.budget = 0.0, 1_000_000
    world.clock_s += 60.0  # whoever was heard a moment ago, and is dead, is silent now

    def look(actor: Actor) -> None:
        journal = open_journal(world, actor)
        for run_id in sorted(world.acked):
            found = journal.find(run_id)
            if found.state == "absent" and run_id in world.droppable:
                continue
            if found.damaged:
                world.broken.append(f"{run_id}: undamaged bytes are called damaged: {found.damaged}")
            world.check_complete(run_id, [str(r[2]) for r in found.records if r[0] != Kind.START], "at the end")
            world.check_values(found.records, f"at the end, in {run_id}")

    world.play([look])
