"""The supervisor's listening sockets: taken once, refused with a sentence."""

from __future__ import annotations

from contextlib import closing

import pytest

from gateway.errors import StartupError
from gateway.runtime import sockets


def test_port_zero_takes_a_free_one() -> None:
    """The URL says which."""
    with closing(sockets.listen("127.0.0.1", 0)) as listener:
        port = sockets.port_of(listener)

        assert port > 0
        assert sockets.url_of(listener) == f"http://127.0.0.1:{port}"


def test_a_port_in_use_is_refused() -> None:
    """With a sentence that names it, and exit code 3."""
    with closing(sockets.listen("127.0.0.1", 0)) as listener:
        port = sockets.port_of(listener)
        with pytest.raises(StartupError) as refused:
            sockets.listen("127.0.0.1", port)

    assert refused.value.message == f"Port {port} on 127.0.0.1 is in use by another program."
    assert refused.value.exit_code == 3


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_not_this_machines_is_refused(host: str) -> None:
    """Neither an address of somebody else's nor a name that means nothing."""
    with pytest.raises(StartupError, match="is not an address of this machine"):
        sockets.listen(host, 0)


def test_a_socket_for_all_addresses_is_reached_at_this_machines_own() -> None:
    """0.0.0.0 is nothing to connect to."""
    with closing(sockets.listen("0.0.0.0", 0)) as listener:
        assert sockets.url_of(listener) == f"http://127.0.0.1:{sockets.port_of(listener)}"
