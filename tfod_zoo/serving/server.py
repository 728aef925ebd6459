"""From a free port to the last answer."""

from __future__ import annotations

import signal
import socket
from typing import Any

import uvicorn

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.serving.admission import Admission
from tfod_zoo.serving.app import make_app
from tfod_zoo.serving.served_model import ServedModel


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, which does not listen yet: who is early is refused instead of waiting for the weights.

    Args:
      host: an address or name of this machine.
      port: 0 takes a free one.

    Raises:
      UsageError: there is no such host.
      ZooError: the port is taken, or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"--host {host} is no address of this machine; give one, such as 127.0.0.1.") from error
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose last server has just gone is free
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ZooError(f"Cannot serve on {host} port {port} ({error.strerror}); give another --port.") from error
    return bound


def serve(model: ServedModel, bound: socket.socket, *, max_requests: int, max_body: int) -> None:
    """Answers until SIGINT or SIGTERM, then what is in flight, and returns. A second SIGINT ends it at once.

    Args:
      model: warmed up.
      bound: of `bind`; closed at the end.
      max_requests: in flight at once; more are told to come again.
      max_body: bytes of a request's body, at most.
    """
    admission = Admission(max_requests)
    config = uvicorn.Config(make_app(model, admission, max_body), log_level="warning", server_header=False)
    # uvicorn stops by these signals, and then raises them again for whoever had them before: for us they are done with.
    before = {number: signal.signal(number, _done) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        uvicorn.Server(config).run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        admission.close()


def _done(number: int, frame: Any) -> None:
    """Takes a signal that has been obeyed."""
