"""Listening sockets, opened by the supervisor and handed to the workers, and how many files a process may have open."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import struct
from contextlib import suppress

from gateway.errors import StartupError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port``; port 0 takes a free port.

    Raises:
        StartupError: the port is in use, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StartupError(f"{host} is not an address of this machine.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise StartupError(_why(error, host, port)) from error
    return listener


def reset(transport: asyncio.Transport) -> None:
    """Reset a connection, which its other side can distinguish from closing it; unsent bytes are dropped."""
    accepted: socket.socket = transport.get_extra_info("socket")
    if accepted.family != socket.AF_UNIX:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def url_of(listener: socket.socket) -> str:
    """Return a URL at which this machine itself reaches the socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use by another program."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} is not open to this user."
    return f"{host} is not an address of this machine."


UNBOUNDED = 10_240
"""How many files to request where the system sets no limit: the default of macOS, which sets none."""


def files_allowed() -> int:
    """Return how many files a process of ours may have open, once it has raised its limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNBOUNDED if hard == resource.RLIM_INFINITY else hard


def raise_open_files_limit() -> None:
    """Raise this process's soft limit to the hard limit, as servers do.

    Most systems begin with 1,024. A call takes two files, to its caller and to the model; a call that gets no file
    breaks off other calls.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files_allowed():
        with suppress(ValueError, OSError):  # a system may have a further bound
            resource.setrlimit(resource.RLIMIT_NOFILE, (files_allowed(), hard))
