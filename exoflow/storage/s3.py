"""A bucket as a store: objects created with ``If-None-Match: *``."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Hashable
from typing import TYPE_CHECKING, Any

from exoflow.errors import StorageError, UnsupportedStore
from exoflow.hooks import reach
from exoflow.protocols import Buffer
from exoflow.storage import s3_loop
from exoflow.storage.names import checked
from exoflow.storage.s3_failures import NOT_THERE, code_of, s3_error

if TYPE_CHECKING:
    from exoflow.storage.s3_bucket import Bucket


_CLOSES_IN_S = 1.0
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""They decide where a url lies, as the option does; credentials in the environment only, whether one may."""
_open: weakref.WeakSet[S3Store] = weakref.WeakSet()


class S3Store:
    """Objects below a prefix of a bucket.

    It can be pickled: each process, forked ones too, opens its own connection when it first needs one.

    Args:
        url: ``s3://bucket/prefix``.
        storage_options: as ``s3fs.S3FileSystem`` takes them: ``profile``, ``endpoint_url``, ``key``, ``secret``,
            ``client_kwargs={"region_name": ...}``, ``config_kwargs={"read_timeout": ...}``, ``s3_additional_kwargs``.
            What is not given comes from the environment and ~/.aws, as for every AWS tool.

    Raises:
        UnsupportedStore: the url names no bucket, or s3fs is not installed.
    """

    shared = True

    def __init__(self, url: str, **storage_options: Any) -> None:
        scheme, _, rest = url.partition("://")
        name, _, prefix = rest.partition("/")
        prefix = "/".join(part for part in prefix.split("/") if part)
        if scheme not in ("s3", "s3a") or not name:
            raise UnsupportedStore(f"{url!r} names no bucket: write s3://bucket/prefix")
        if importlib.util.find_spec("s3fs") is None:
            raise UnsupportedStore(f"{url}: s3:// needs s3fs, which is not installed: pip install 'exoflow[s3]'")
        self.url = f"s3://{name}/{prefix}".rstrip("/")
        self._name = name
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = storage_options
        self.place = self.url, *(os.environ.get(name, "") for name in _ENDPOINTS), _frozen(storage_options)
        self._sent = False
        self._opening = threading.Lock()
        self._opened: tuple[int, Bucket] | None = None

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    def __reduce__(self) -> tuple[Callable[..., S3Store], tuple[str, dict[str, Any]]]:
        return _reopened, (self.url, self._options)

    def create(self, name: str, *parts: Buffer) -> bool:
        checked(name)
        views = [memoryview(part).cast("B") for part in parts]
        reach("store.create.before_link")
        ours: bool = self._run("create", name, self._bucket().create, name, views)
        reach("store.create.after")
        return ours

    def read(self, name: str) -> memoryview:
        checked(name)
        reach("store.read.before")
        view: memoryview = self._run("read", name, self._bucket().read, name)
        return view

    def read_range(self, name: str, start: int, size: int | None = None) -> bytes:
        checked(name)
        reach("store.read.before")
        data: bytes = self._run("read", name, self._bucket().read_range, name, start, size)
        return data

    def exists(self, name: str) -> bool:
        found: bool = self._run("look at", checked(name), self._bucket().exists, name)
        return found

    def list(self, prefix: str) -> list[str]:
        folder = checked(prefix.rstrip("/")) + "/" if prefix else ""
        names: list[str] = self._run("list", prefix, self._bucket().list, folder)
        return names

    def delete(self, name: str) -> None:
        checked(name)
        reach("store.delete.before")
        self._run("delete", name, self._bucket().delete, name)

    def _run(self, what: str, name: str, request: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        """The request's result. It runs in a thread of its own: it can be asked for from any, in a running loop too.

        Raises:
            FileNotFoundError: there is no such object.
            StorageError: anything else that went wrong.
        """
        from aiohttp import ClientError as ConnectionFailed
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return s3_loop.begin(request(*arguments)).result()
        except StorageError:
            raise
        except (
            OSError,
            BotoCoreError,
            ClientError,
            ConnectionFailed,
            TimeoutError,
            ValueError,
            RecursionError,
        ) as error:
            place = f"{self.url}/{name}"
            if code_of(error) in NOT_THERE and what not in ("list", "create"):
                raise FileNotFoundError(f"{place}: there is no such object") from None
            raise s3_error(what, place, error, sent=self._sent) from error

    def _bucket(self) -> Bucket:
        opened = self._opened
        if opened is not None and opened[0] == os.getpid():
            return opened[1]
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                from exoflow.storage.s3_bucket import Bucket

                bucket = Bucket(self._name, self._prefix, self._options)
                weakref.finalize(self, _close, os.getpid(), bucket).atexit = False
                _open.add(self)
                self._opened = os.getpid(), bucket
            return self._opened[1]


def _close(pid: int, bucket: Bucket) -> None:
    """Close the connections of a store that is gone; a forked child leaves its parent's alone."""
    if pid == os.getpid():
        s3_loop.begin(bucket.close())


@atexit.register  # before any journal can be opened, so after each has written its last batch
def _close_all() -> None:
    for store in list(_open):
        if store._opened is not None and store._opened[0] == os.getpid():
            with contextlib.suppress(TimeoutError):
                s3_loop.begin(store._opened[1].close()).result(_CLOSES_IN_S)


def _frozen(options: Any) -> Hashable:
    """Options that can be compared and hashed; an object that is no plain data is equal to itself."""
    if isinstance(options, dict):
        return frozenset((key, _frozen(value)) for key, value in options.items())
    if isinstance(options, (list, tuple)):
        return tuple(map(_frozen, options))
    plain = options is None or isinstance(options, (str, bytes, int, float))
    return (type(options), options) if plain else id(options)


def _reopened(url: str, options: dict[str, Any]) -> S3Store:
    store = S3Store(url, **options)
    store._sent = True
    return store
