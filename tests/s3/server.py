"""moto's S3 server as a process of its own. Prints its port, and ends with its standard input.

moto looks for the object and then writes it, without a lock: of 1,500 races of four processes 29 had not one winner
(with threads that switch as often as they can). Amazon's S3 decides in one step, and so does this server: one request
that writes at a time.
"""

import io
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Answer = Iterable[bytes]


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as with the real thing

    def log(self, *args: object) -> None:
        pass


class OneWriter:
    """Lets one request at a time decide what exists."""

    def __init__(self, app: Callable[..., Answer]) -> None:
        self.app = app
        self.writing = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self.app(environ, start_response)
        size = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(size))  # a client may be stopped while it sends
        with self.writing:
            return list(self.app(environ, start_response))


def main() -> None:
    server = make_server(
        "127.0.0.1", 0, OneWriter(DomainDispatcherApplication(create_backend_app)), threaded=True, request_handler=Quiet
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
