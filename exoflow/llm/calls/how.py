"""How a model is called: all of an ``LLM`` that does not make two calls different."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from exoflow.driver.spec import Backoff
from exoflow.errors import CallRefused
from exoflow.llm.calls.prices import Prices
from exoflow.llm.fair.pace import Pace

if TYPE_CHECKING:
    from exoflow.llm.durable import EngineSpec
    from exoflow.llm.fair.scheduler import FairScheduler

logger = logging.getLogger(__name__)
BACKOFF = Backoff(initial_s=0.5)
_here: WeakValueDictionary[str, How] = WeakValueDictionary()
"""By token: what was described in this process, and what came from elsewhere."""
_secrets: dict[str, dict[Secrets, str]] = {}
"""By endpoint, all that this program has given, and the names by which its own descriptions refer to them."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What is never stored, and never shown."""

    api_key: str | None
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return "Secrets(...)"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a key is not to be pickled")


def check_parts(prices: object, scheduler: object, api_key: object, api_key_env: object, headers: object) -> None:
    """Refuse what would be found out at the first call only. It shows no key.

    Raises:
        TypeError, ValueError: with what to write.
    """
    if prices is not None and not isinstance(prices, Prices):
        raise TypeError(f"prices={prices!r}: give Prices(usd_per_million_in=..., usd_per_million_out=...)")
    if scheduler is not None and (isinstance(scheduler, type) or not hasattr(scheduler, "admit")):
        raise TypeError(f"scheduler={scheduler!r}: give a FairScheduler(...)")
    if not isinstance(api_key_env, str):
        raise TypeError(f'api_key_env={api_key_env!r} must be the name of an environment variable; "" is none')
    if headers is not None and not isinstance(headers, Mapping):
        raise TypeError("headers= must be a mapping of text to text")
    for name, value in (("api_key", api_key), *(headers or {}).items()):
        if value is None and name == "api_key":
            continue
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"{name!r} in the headers must be text" if name != "api_key" else "api_key= must be text")
        if not (name + value).isprintable():
            raise ValueError(f"{name!r} holds a line break or another character that no header may: strip() it")


@dataclass(frozen=True, eq=False, repr=False)
class How:
    """As described; found again by its token where it is at hand, made again by its description elsewhere."""

    endpoint: str
    """Without a slash at its end; of an engine, its model."""
    engine: EngineSpec | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Of each call that does not say otherwise."""
    prices: Prices | None = None
    scheduler: FairScheduler | None = None
    rpm: int | None = None
    tpm: int | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 600.0
    retries: int = 5
    backoff: Backoff = BACKOFF
    max_in_flight: int = 64
    secrets: Secrets | None = None
    lacks_secrets: str = ""
    """By this name they were given as arguments, in this process or another one."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        _here[self.token] = self
        if self.secrets is not None:
            _secrets.setdefault(self.endpoint, {}).setdefault(self.secrets, uuid.uuid4().hex)

    def __reduce__(self) -> tuple[Any, ...]:
        described = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "secrets"}
        if self.secrets is not None:
            described["lacks_secrets"] = _secrets[self.endpoint][self.secrets]
        return _again, (self.token, described)

    @property
    def pace(self) -> Pace:
        """What the endpoint takes in a minute; one for all that have its key and describe it alike in this process."""
        return Pace.of((self.endpoint, self._key(self._given())), self.rpm, self.tpm)

    def headers(self) -> dict[str, str]:
        """With the key, where there is one.

        Raises:
            CallRefused: it was given as an argument in another process, and is not at hand in this one.
        """
        secrets = self._given()
        key = self._key(secrets)
        authorised = {"Authorization": f"Bearer {key}"} if key else {}
        return {"Content-Type": "application/json", **authorised, **dict(secrets.headers if secrets else ())}

    def _key(self, secrets: Secrets | None) -> str | None:
        return (secrets.api_key if secrets is not None else None) or os.environ.get(self.api_key_env)

    def _given(self) -> Secrets | None:
        return self._found() if self.lacks_secrets else self.secrets

    def _found(self) -> Secrets | None:
        """Of the same endpoint: a description that was read from a store has none, but the program gives them again."""
        given = _secrets.get(self.endpoint, {})
        found = [secrets for secrets, name in given.items() if name == self.lacks_secrets] or list(given)
        if len(found) == 1 or not found and self.api_key_env in os.environ:
            return next(iter(found), None)
        advice = (
            "Describe only the right one, LLM(..., api_key=..., headers=...), in the program that resumes"
            if found
            else "Write LLM(..., api_key=...) in the program that resumes, or put the key into an environment "
            "variable: api_key_env='NAME'"
        )
        raise CallRefused(
            f"{self.endpoint}: this LLM was read from a store, where keys and headers are not kept, and the program "
            f"has given {len(found) or 'none'} for this endpoint. {advice}"
        )


def _again(token: str, described: Mapping[str, Any]) -> How:
    return _here.get(token) or How(**described)


class Listener:
    """Who is told of an answer while it comes: all of its text so far.

    It stays in this process: a copy that was pickled finds it here, and nobody elsewhere.
    """

    _all: ClassVar[WeakValueDictionary[str, Listener]] = WeakValueDictionary()

    def __init__(
        self, function: Callable[[str], None] | None, *, begins_anew: bool = True, token: str | None = None
    ) -> None:
        self.function = function
        self.begins_anew = begins_anew
        """Whether it may be told another text after a try that broke off."""
        self.token = token or uuid.uuid4().hex
        self._all[self.token] = self

    def hears(self, so_far: str) -> None:
        """Tell it. Its own mistakes are logged: a call that is paid for must not fail by them."""
        if self.function is None:
            return
        try:
            self.function(so_far)
        except Exception:  # it is the user's code
            logger.exception("what is told of an answer as it comes has failed, and is told no more")
            self.function = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _listener, (self.token,)


def _listener(token: str) -> Listener:
    return Listener._all.get(token) or Listener(None, token=token)


@dataclass(frozen=True, slots=True)
class CallOptions:
    """One call's own: whom it is for, and who is told of it."""

    labels: Mapping[str, str] = field(default_factory=dict)
    key: str | int | None = None
    job: str = ""
    on_text: Listener | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Which call it is."""

    id: str
    run: str
    key: str
    """The idempotency key."""
    was_dispatched: bool = False
    """Before, in a process that died: nobody knows what became of it."""


class Binding:
    """What a ``Model`` has besides its fields; whoever makes one keeps it."""

    def __init__(self, how: How, call: CallOptions) -> None:
        self.how = how
        self.call = call
        self.token = uuid.uuid4().hex
        _bindings[self.token] = self


_bindings: WeakValueDictionary[str, Binding] = WeakValueDictionary()


@dataclass(frozen=True, init=False, eq=False)
class Model:
    """An ``LLM`` as the argument of a recorded call: it is compared by its endpoint and model alone.

    All else of it stays in this process, as the call does: a copy that was pickled finds it here.
    """

    endpoint: str
    model: str

    def __init__(self, endpoint: str, model: str, token: str = "") -> None:
        for name, value in (("endpoint", endpoint), ("model", model), ("token", token)):
            object.__setattr__(self, name, value)

    @property
    def how(self) -> How:
        return self._binding.how

    @property
    def call(self) -> CallOptions:
        return self._binding.call

    @property
    def _binding(self) -> Binding:
        return _bindings[vars(self)["token"]]

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, (self.endpoint, self.model, vars(self)["token"])
