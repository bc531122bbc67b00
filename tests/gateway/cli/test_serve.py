"""``tokencap serve`` with everything real: it starts, serves, drains, survives kills, and refuses in one sentence."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import httpx
import redis

from gateway.runtime import sockets
from tests.gateway.cli.commands import Serving, serving, tokencap
from tests.loop.rig import Sold
from tests.waiting import until

DEADLINE_S = 30.0
ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}


def _customer(gateway: Serving, cap: int) -> Sold:
    rig = gateway.rig(gateway.admin_token())
    rig.tier("only", conversation_tokens_max=cap, price_nanousd=1_000)
    return rig.customer("only")


def _call(gateway: Serving, who: Sold) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=ASKED, headers=who.headers, timeout=DEADLINE_S)


def _refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez")
    except httpx.TransportError:  # also of who was in the backlog when the sockets were closed
        return True
    return False


def test_it_says_where_it_serves_once_it_does(directory: Path) -> None:
    """One line with the URL, which answers; the admin token it had to make on another, once and never again."""
    with serving(directory) as first:
        assert httpx.get(f"{first.url}/livez").is_success
        token = first.admin_token()
        admin = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{first.url}/admin/customers", headers=admin).is_success
        assert first.stop() == 0

    with serving(directory) as second:
        assert httpx.get(f"{second.url}/admin/customers", headers=admin).is_success
        assert second.stop() == 0

    assert len(second.output.queue) == 1
    assert not any(child.process.is_running() for child in (*first.children(), *second.children()))


def test_a_given_admin_token_is_not_printed(directory: Path) -> None:
    """It works, and stands nowhere in what the command says."""
    with serving(directory, admin_token="a-secret-of-the-operators") as gateway:
        answer = httpx.get(
            f"{gateway.url}/admin/customers", headers={"authorization": "Bearer a-secret-of-the-operators"}
        )
        gateway.stop()

    assert answer.is_success
    assert "a-secret-of-the-operators" not in "".join(gateway.output.queue)


def test_a_stop_lets_running_answers_end(directory: Path) -> None:
    """A stream that has begun when SIGTERM comes is streamed to its proper end and booked; new callers are refused."""
    with serving(directory) as gateway:
        customer = _customer(gateway, cap=150)
        url, body = f"{gateway.url}/v1/chat/completions", {**ASKED, "stream": True}
        with httpx.stream("POST", url, json=body, headers=customer.headers, timeout=DEADLINE_S) as stream:
            lines = stream.iter_lines()
            first = next(line for line in lines if line)
            gateway.process.terminate()
            until(lambda: _refuses(gateway.url))
            rest = [line for line in lines if line]

        assert first.startswith("data: {")
        assert rest[-1] == "data: [DONE]"
        assert gateway.process.wait(DEADLINE_S) == 0

    books = tokencap(directory, "ledger", "verify")
    assert books.stdout.splitlines()[0] == "Chain main: 1 rows, every one as it was written."


def test_a_killed_supervisor_leaves_nothing_running_and_nothing_lost(directory: Path) -> None:
    """Its children end by themselves, in order; the next start on the same directory knows customers and records."""
    with serving(directory, workers=2) as first:
        token = first.admin_token()
        customer = _customer(first, cap=5)
        assert _call(first, customer).is_success
        children = first.children()
        assert len(children) == 5

        first.process.kill()

        until(lambda: not any(child.process.is_running() for child in children), DEADLINE_S)

    with serving(directory) as second:
        assert _call(second, customer).is_success
        records = second.rig(token).usage(customer)
        assert [record["billed_output_tokens"] for record in records] == [5, 5]


def test_a_killed_supervisor_lets_running_answers_end(directory: Path) -> None:
    """The stream goes on to its proper end and is booked before the bookkeeper and, at last, Valkey go."""
    with serving(directory) as gateway:
        customer = _customer(gateway, cap=150)
        children = gateway.children()
        url, body = f"{gateway.url}/v1/chat/completions", {**ASKED, "stream": True}
        with httpx.stream("POST", url, json=body, headers=customer.headers, timeout=DEADLINE_S) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if line)
            gateway.process.kill()
            rest = [line for line in lines if line]

        assert rest[-1] == "data: [DONE]"
        until(lambda: not any(child.process.is_running() for child in children), DEADLINE_S)

    verified = tokencap(directory, "ledger", "verify").stdout
    assert verified.splitlines()[0] == "Chain main: 1 rows, every one as it was written."


def test_a_start_right_after_a_kill_waits_for_what_is_left(directory: Path) -> None:
    """The next start does not trip over the children of the killed one, which may need a moment."""
    with serving(directory) as first:
        first.process.kill()
        first.process.wait()
        with serving(directory) as second:
            assert httpx.get(f"{second.url}/readyz").is_success


def test_a_killed_valkey_is_started_again_with_its_data(directory: Path) -> None:
    """The gateway answers again by itself, and the same customer is served."""
    with serving(directory) as gateway:
        customer = _customer(gateway, cap=5)
        assert _call(gateway, customer).is_success
        [server] = gateway.children("valkey")

        os.kill(server.process.pid, signal.SIGKILL)

        until(lambda: gateway.children("valkey") not in ([server], []), DEADLINE_S)
        until(lambda: httpx.get(f"{gateway.url}/readyz").is_success, DEADLINE_S)
        assert _call(gateway, customer).is_success
        socket = gateway.data.remembered().socket
        assert socket is not None
        with redis.Redis(unix_socket_path=socket) as client:
            assert client.exists(*client.keys("*:window:*"))


def test_a_killed_worker_is_replaced(directory: Path) -> None:
    """The gateway answers again under the same address."""
    with serving(directory) as gateway:
        [worker] = gateway.children("worker")

        os.kill(worker.process.pid, signal.SIGKILL)

        until(lambda: gateway.children("worker") not in ([worker], []), DEADLINE_S)
        assert httpx.get(f"{gateway.url}/livez", timeout=DEADLINE_S).is_success


def test_a_reload_replaces_the_workers_and_nobody_notices(directory: Path) -> None:
    """New workers have the settings as they are now; a stream of an old one ends as it should, and no call is refused,
    nor lost of a caller who keeps its connection."""
    settings = directory.parent / "tokencap.toml"
    with serving(directory, workers=2) as gateway:
        customer = _customer(gateway, cap=150)
        before = {child.process.pid for child in gateway.children("worker")}
        [books] = gateway.children("bookkeeper")
        url, body = f"{gateway.url}/v1/chat/completions", {**ASKED, "stream": True}
        kept = httpx.Client(headers=customer.headers, timeout=DEADLINE_S)
        with kept, kept.stream("POST", url, json=body) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if line)
            settings.write_text('model_aliases = "renamed"\n')

            gateway.process.send_signal(signal.SIGHUP)

            answered = [_call(gateway, customer).status_code]
            rest = [line for line in lines if line]
            while before & {child.process.pid for child in gateway.children("worker")}:
                answered += [_call(gateway, customer).status_code, kept.post(url, json=ASKED).status_code]
            renamed = kept.post(url, json={**ASKED, "model": "renamed"})

        [later_books] = gateway.children("bookkeeper")

    assert rest[-1] == "data: [DONE]"
    assert set(answered) == {200}
    assert renamed.status_code == 200
    assert later_books != books


def test_a_reload_with_settings_that_make_no_sense_changes_nothing(directory: Path) -> None:
    with serving(directory) as gateway:
        customer = _customer(gateway, cap=5)
        before = gateway.children("worker")
        (directory.parent / "tokencap.toml").write_text("answer_tokens_max = 0\n")

        gateway.process.send_signal(signal.SIGHUP)

        line = until(lambda: next((line for line in gateway.errors.queue if "reloaded" in line), ""), DEADLINE_S)
        assert "TOKENCAP_ANSWER_TOKENS_MAX" in line
        assert gateway.children("worker") == before
        assert _call(gateway, customer).is_success


def test_a_directory_in_use_is_refused(directory: Path) -> None:
    """Exit code 3 and one sentence that names the process and the directory."""
    with serving(directory) as gateway:
        refused = tokencap(directory, "serve")

    assert refused.returncode == 3
    assert refused.stderr == f"The data directory {directory} is in use by process {gateway.process.pid}.\n"
    assert refused.stdout == ""


def test_a_port_in_use_is_refused(directory: Path) -> None:
    """Exit code 3 and one sentence that names it; nothing is left running."""
    with closing(sockets.listen("127.0.0.1", 0)) as listener:
        port = sockets.port_of(listener)
        refused = tokencap(directory, "serve", port=port)

    assert refused.returncode == 3
    assert refused.stderr == f"Port {port} on 127.0.0.1 is in use by another program.\n"


def test_the_admin_side_can_have_an_address_of_its_own(directory: Path) -> None:
    """With an admin port the admin API is there and not on the public one."""
    with serving(directory, admin_port=0, admin_token="a-secret-of-the-operators") as gateway:
        public, admin = (word.rstrip(",") for word in gateway.output.queue[0].split() if word.startswith("http"))
        headers = {"authorization": "Bearer a-secret-of-the-operators"}

        assert httpx.get(f"{admin}/admin/customers", headers=headers).is_success
        assert httpx.get(f"{public}/admin/customers", headers=headers).status_code == 404
        assert httpx.get(f"{public}/v1/models").status_code == 401


def test_a_setting_that_makes_no_sense_is_wrong_use(directory: Path) -> None:
    """Exit code 2 and one sentence that names the setting."""
    refused = tokencap(directory, "serve", port="eighty")

    assert refused.returncode == 2
    assert refused.stderr.startswith("TOKENCAP_PORT: ")
    assert len(refused.stderr.splitlines()) == 1
