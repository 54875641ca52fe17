"""What networks and services do to requests, between us and a real server."""

import os
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import s3_proxy as planted

from exoflow.driver.runtime import Runtime
from exoflow.errors import StorageError, UnsupportedStore
from exoflow.settings import executors_of
from exoflow.storage import S3Store

MIB = 1 << 20


@pytest.fixture
def proxy(s3_environment: str) -> Iterator[Any]:
    proxy = planted.Proxy(s3_environment)
    yield proxy
    proxy.close()


@pytest.fixture
def store(s3_url: str, proxy: Any) -> S3Store:
    store = S3Store(s3_url, endpoint_url=proxy.endpoint, config_kwargs={"read_timeout": 1})
    store.create("first", b"")
    proxy.counts.clear()
    return store


def put(exchange: Any) -> bool:
    return exchange.kind == "PUT" and "/a" in exchange.key


def get(exchange: Any) -> bool:
    return exchange.kind == "GET"


def complete(exchange: Any) -> bool:
    return exchange.kind == "POST" and "uploadId=" in exchange.handler.path and "/a" in exchange.key


def test_a_create_whose_answer_was_lost_is_ours(store: S3Store, proxy: Any) -> None:
    proxy.fault(1, put, planted.lost_answer)
    assert store.create("a", b"same")
    assert not store.create("a", b"same")


def test_a_create_that_was_done_and_called_a_failure_is_ours(store: S3Store, proxy: Any) -> None:
    proxy.fault(2, put, planted.done_but_refused(500, "InternalError"))
    assert store.create("a", b"x")


def test_a_create_that_a_stranger_won_while_our_request_was_lost_is_not_ours(store: S3Store, proxy: Any) -> None:
    other = S3Store(store.url)
    other.create("other", b"")  # it is connected, and is faster than our patience

    def happens(exchange: Any) -> None:
        assert other.create("a", b"same")
        planted.lost_request(exchange)

    proxy.fault(1, put, happens)
    assert not store.create("a", b"same")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "SlowDown"),
        (429, "SlowDown"),
        pytest.param(500, "InternalError", marks=pytest.mark.big),
        pytest.param(503, "ServiceUnavailable", marks=pytest.mark.big),
    ],
)
def test_an_overloaded_service_is_asked_again(store: S3Store, proxy: Any, status: int, code: str) -> None:
    proxy.fault(2, put, planted.refused(status, code))
    assert store.create("a", b"x")
    assert bytes(store.read("a")) == b"x"


@pytest.mark.big
def test_a_service_that_stays_out_of_order_is_a_storage_error(store: S3Store, proxy: Any) -> None:
    proxy.fault(99, put, planted.refused(503, "SlowDown"))
    with pytest.raises(StorageError, match=r"SlowDown.*look into its status, then resume"):
        store.create("a", b"x")
    assert not store.exists("a")
    assert proxy.counts["PUT"] <= 6


def test_a_conflict_is_asked_again(store: S3Store, proxy: Any) -> None:
    proxy.fault(1, put, planted.refused(409, "ConditionalRequestConflict"))
    assert store.create("a", b"x")


def test_an_answer_that_never_comes_is_asked_for_again(store: S3Store, proxy: Any) -> None:
    released = threading.Event()
    proxy.fault(1, put, planted.silence(released))
    assert store.create("a", b"x")
    released.set()


def test_a_read_that_breaks_off_is_read_again(store: S3Store, proxy: Any) -> None:
    data = os.urandom(100_000)
    store.create("a", data)
    proxy.fault(2, get, planted.cut_short)
    assert store.read("a") == data


def test_a_part_that_breaks_off_is_read_again(store: S3Store, proxy: Any) -> None:
    data = os.urandom(20 * MIB)
    assert store.create("a", data)
    proxy.fault(2, get, planted.cut_short)
    assert store.read("a") == data


def test_an_upload_in_parts_whose_end_was_not_heard_is_ours(store: S3Store, proxy: Any) -> None:
    data = os.urandom(20 * MIB)
    proxy.fault(1, complete, planted.lost_answer)
    assert store.create("a", data[:7], data[7:])
    assert not store.create("a", data)
    assert store.read("a") == data


def test_an_upload_in_parts_that_fails_leaves_nothing(store: S3Store, proxy: Any) -> None:
    proxy.fault(99, lambda exchange: "partNumber=2" in exchange.handler.path, planted.refused(403, "AccessDenied"))
    with pytest.raises(StorageError, match="AccessDenied"):
        store.create("a", bytes(20 * MIB))
    assert not store.exists("a")
    assert proxy.counts["DELETE"] >= 1  # the parts, too


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (400, "ExpiredToken", "have expired: renew them"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (403, "AccessDenied", "s3:ListBucket"),
        (403, "RequestTimeTooSkewed", "clock is wrong"),
        (400, "IllegalLocationConstraintException", "another region"),
        (404, "NoSuchBucket", "create the bucket"),
    ],
)
def test_an_error_says_what_to_do(store: S3Store, proxy: Any, status: int, code: str, advice: str) -> None:
    proxy.fault(99, lambda exchange: True, planted.refused(status, code))
    for use in (lambda: store.create("a", b""), lambda: store.read("a"), lambda: store.list("a")):
        with pytest.raises(StorageError, match=advice):
            use()


def test_a_service_that_ignores_the_condition_is_refused(s3_url: str, proxy: Any) -> None:
    def ignores(exchange: Any) -> None:
        del exchange.handler.headers["If-None-Match"]
        exchange.pass_on()
        exchange.reply()

    proxy.fault(99, lambda exchange: exchange.kind == "PUT", ignores)
    store = S3Store(s3_url, endpoint_url=proxy.endpoint)
    with pytest.raises(UnsupportedStore, match="ignores the condition"):
        store.create("a", b"")
    assert not store.exists("a")


def test_a_service_that_does_not_know_the_condition_is_refused(s3_url: str, proxy: Any) -> None:
    proxy.fault(99, lambda exchange: exchange.kind == "PUT", planted.refused(501, "NotImplemented"))
    with pytest.raises(UnsupportedStore, match="does not know the condition"):
        S3Store(s3_url, endpoint_url=proxy.endpoint).create("a", b"")


def test_an_unreachable_endpoint_is_said(s3_url: str) -> None:
    store = S3Store(s3_url, endpoint_url="http://127.0.0.1:9", config_kwargs={"retries": {"total_max_attempts": 1}})
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        store.create("a", b"")


def test_a_service_that_sends_us_on_for_ever_is_said(store: S3Store, proxy: Any) -> None:
    proxy.fault(100_000, lambda exchange: True, planted.refused(301, "PermanentRedirect"))
    with pytest.raises(StorageError, match="another region"):
        store.list("")


def test_an_endpoint_that_is_no_url_is_said(s3_url: str) -> None:
    with pytest.raises(StorageError, match="must be a whole url"):
        S3Store(s3_url, endpoint_url="127.0.0.1:9").list("")


def test_an_endpoint_that_is_another_server_is_said(store: S3Store, proxy: Any) -> None:
    proxy.fault(99, lambda exchange: True, planted.refused(404, "404"))
    with pytest.raises(StorageError, match="no S3 service at the endpoint"):
        store.list("")


def test_two_stores_of_one_url_with_other_options_are_not_one(s3_url: str, proxy: Any) -> None:
    one, same = S3Store(s3_url, config_kwargs={"read_timeout": 9}), S3Store(s3_url, config_kwargs={"read_timeout": 9})
    others = S3Store(s3_url), S3Store(s3_url, key="a", secret="b"), S3Store(s3_url, endpoint_url=proxy.endpoint)
    assert Runtime.of(one) is Runtime.of(same) is Runtime.of(pickle.loads(pickle.dumps(one)))
    assert len({id(Runtime.of(store)) for store in (one, *others)}) == 4
    assert len({id(executors_of(store)) for store in (one, *others)}) == 4


def test_missing_credentials_are_said_and_where_if_the_store_was_sent_there(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    with pytest.raises(StorageError, match=r"no credentials were found: set AWS_PROFILE or [A-Z_]+ and [A-Z_]+$"):
        S3Store(s3_url).read("a")
    sent = pickle.loads(pickle.dumps(S3Store(s3_url)))
    here = rf"no credentials were found.* So says process {os.getpid()} on .* Give the cluster's workers yours"
    with pytest.raises(StorageError, match=here):
        sent.read("a")


def test_each_use_is_one_request(store: S3Store, proxy: Any) -> None:
    store.create("a", b"x")
    store.read("a")
    store.exists("none")
    store.read_range("a", 0, 1)
    store.list("a")
    store.delete("a")
    assert dict(proxy.counts) == {"PUT": 1, "GET": 2, "HEAD": 1, "LIST": 1, "DELETE": 1}


def test_a_store_can_be_pickled_with_its_options(store: S3Store, proxy: Any) -> None:
    again = pickle.loads(pickle.dumps(store))
    assert again.create("a", b"x")
    assert proxy.counts["PUT"] == 2  # one of them the probe: the options came along


def test_a_forked_child_has_a_connection_of_its_own(store: S3Store) -> None:
    child = os.fork()
    if not child:
        os._exit(0 if store.create("a", b"child") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(store.read("a")) == b"child"


async def test_it_can_be_used_in_a_running_loop(store: S3Store) -> None:
    assert store.create("a", b"x")
