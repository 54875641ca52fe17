"""A proxy between us and an S3 server, which counts requests and does to some of them what networks and services do."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Fault = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request, and what can be done to it."""

    handler: BaseHTTPRequestHandler
    body: bytes
    upstream: tuple[str, int]
    answer: tuple[int, list[tuple[str, str]], bytes] | None = field(default=None)

    @property
    def kind(self) -> str:
        query = self.handler.path.partition("?")[2]
        if self.handler.command == "GET" and "list-type" in query:
            return "LIST"
        return self.handler.command

    @property
    def key(self) -> str:
        return self.handler.path.partition("?")[0]

    def pass_on(self) -> None:
        """Let the server do it; nobody is told yet."""
        connection = http.client.HTTPConnection(*self.upstream)
        headers = {name: value for name, value in self.handler.headers.items() if name.lower() != "connection"}
        connection.request(self.handler.command, self.handler.path, self.body, headers)
        response = connection.getresponse()
        dropped = ("connection", "transfer-encoding", "content-length", "server", "date")
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in dropped]
        length = response.getheader("Content-Length")
        data = response.read()
        kept.append(("Content-Length", length or str(len(data))))  # a HEAD has one, and no data
        self.answer = response.status, kept, data
        connection.close()

    def reply(self, cut: int | None = None) -> None:
        """Tell what the server said, or only a beginning of it."""
        assert self.answer is not None
        status, headers, data = self.answer
        self.handler.send_response(status)
        for name, value in headers:
            self.handler.send_header(name, value)
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self.handler.wfile.write(data[:cut])
        if cut is not None:
            self.hang_up()

    def refuse(self, status: int, code: str) -> None:
        """Answer with an error of S3's."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}, as planted</Message></Error>".encode()
        self.answer = status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body
        self.reply()

    def hang_up(self) -> None:
        """End the connection without another word."""
        self.handler.close_connection = True
        self.handler.connection.close()


class Proxy:
    """Faults are asked in turn for each request; one that returns True has dealt with it."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self.upstream = host, int(port)
        self.counts: Counter[str] = Counter()
        self.keys: Counter[tuple[str, str]] = Counter()
        self.latency_s = 0.0
        self.faults: list[Callable[[Exchange], bool]] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                del self.headers["Expect"]  # it was answered
                proxy.serve(Exchange(self, self.rfile.read(size), proxy.upstream))

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one  # noqa: N815  http.server's names

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: Any) -> None:
                pass  # connections that we or the client have cut

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def serve(self, exchange: Exchange) -> None:
        with self._lock:
            self.counts[exchange.kind] += 1
            self.keys[exchange.kind, exchange.key] += 1
            faults = list(self.faults)
        if self.latency_s:
            time.sleep(self.latency_s)
        for fault in faults:
            if fault(exchange):
                return
        exchange.pass_on()
        exchange.reply()

    def fault(self, times: int, matches: Callable[[Exchange], bool], happens: Fault) -> None:
        """From now on, the first so many requests that match."""
        left = [times]

        def once(exchange: Exchange) -> bool:
            with self._lock:
                if not left[0] or not matches(exchange):
                    return False
                left[0] -= 1
            happens(exchange)
            return True

        with self._lock:
            self.faults.append(once)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def lost_answer(exchange: Exchange) -> None:
    """The server did it; the client hears nothing."""
    exchange.pass_on()
    exchange.hang_up()


def lost_request(exchange: Exchange) -> None:
    """The connection broke before the server heard anything."""
    exchange.hang_up()


def refused(status: int, code: str) -> Fault:
    return lambda exchange: exchange.refuse(status, code)


def done_but_refused(status: int, code: str) -> Fault:
    """The server did it, and then said that it had failed."""

    def happens(exchange: Exchange) -> None:
        exchange.pass_on()
        exchange.refuse(status, code)

    return happens


def cut_short(exchange: Exchange) -> None:
    """The answer breaks off in the middle."""
    exchange.pass_on()
    assert exchange.answer is not None
    exchange.reply(len(exchange.answer[2]) // 2)


def silence(released: threading.Event) -> Fault:
    """No answer until somebody lets go: the client's patience ends first."""

    def happens(exchange: Exchange) -> None:
        released.wait(60)
        exchange.hang_up()

    return happens
