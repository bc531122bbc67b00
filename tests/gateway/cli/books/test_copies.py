"""Two gateways on one machine: what is not of a data directory is not touched from it."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import httpx

from gateway.holds.store.clients import connect
from gateway.runtime import valkey
from gateway.runtime.data_directory import DataDir
from tests.gateway.cli.commands import Serving, serving, tokencap
from tests.loop.rig import Sold
from tests.waiting import until

DEADLINE_S = 30.0
ASKED = {"model": "aligned-1", "messages": [{"role": "user", "content": "How long is a piece of string?"}]}


def _streamed(url: str, customer: Sold) -> httpx.Response:
    return httpx.post(f"{url}/v1/chat/completions", json=ASKED, headers=customer.headers, timeout=DEADLINE_S)


def test_a_copy_of_a_live_directory_is_a_gateway_of_its_own(directory: Path) -> None:
    """It starts at once, serves by its own Valkey and stops; the one it was copied from runs on with every process."""
    copy = directory.with_name("copy")
    with serving(directory) as live:
        rig = live.rig(live.admin_token())
        rig.tier("only", conversation_tokens_max=50, price_nanousd=1_000)
        customer = rig.customer("only")
        assert _streamed(live.url, customer).is_success
        assert len(rig.usage(customer)) == 1, "what is copied is in the ledger"
        children = live.children()
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.sock"))

        with serving(copy) as second:
            assert _streamed(second.url, customer).is_success
            assert second.data.remembered().socket == str(copy / "valkey" / "valkey.sock")
            assert second.stop() == 0

        assert live.children() == children
        assert all(child.process.is_running() for child in children)
        assert _streamed(live.url, customer).is_success
        assert len(rig.usage(customer)) == 2
        assert live.stop() == 0
    for where in (directory, copy):
        verified = tokencap(where, "ledger", "verify").stdout
        assert verified.splitlines()[0] == "Chain main: 2 rows, every one as it was written."


def test_a_copy_whose_ledger_lacks_what_its_valkey_knows_says_so(directory: Path) -> None:
    """Of a gateway that runs the files are copied one after the other, and a call may be booked between. It is a gateway
    of its own once somebody has decided; the one it was copied from feels nothing of it."""
    copy = directory.with_name("copy")
    with serving(directory) as live:
        rig = live.rig(live.admin_token())
        rig.tier("only", conversation_tokens_max=50, price_nanousd=1_000)
        customer = rig.customer("only")
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.sock", "valkey"))
        assert _streamed(live.url, customer).is_success
        assert len(rig.usage(customer)) == 1
        until(lambda: not waiting(live))
        shutil.copytree(directory / "valkey", copy / "valkey", ignore=shutil.ignore_patterns("*.sock"))

        refused, kept = tokencap(copy, "serve"), tokencap(copy, "ledger", "recover", "--book-missing")
        with serving(copy) as second:
            of_copy = second.rig(live.admin_token()).usage(customer)
            assert _streamed(second.url, customer).is_success

        assert _streamed(live.url, customer).is_success
        assert [record["kind"] for record in rig.usage(customer)] == ["usage", "usage"]
    assert refused.returncode == 3
    assert "The ledger ends at record 0 and has had 1: 1 records are missing" in refused.stderr
    assert "`tokencap ledger recover --book-missing`" in refused.stderr
    assert kept.stdout == "What Redis counts is booked: 1 corrections.\n", kept.stderr
    assert [(record["kind"], record["charge_nanousd"]) for record in of_copy] == [("correction", 1_000)]


def waiting(gateway: Serving) -> int:
    """Return how many records wait in Redis to be booked."""
    with connect(f"unix://{gateway.data.remembered().socket}") as client:
        return sum(client.xlen(name) for name in client.scan_iter("*:usage"))


def test_a_command_beside_a_copy_does_not_reach_the_live_redis(directory: Path) -> None:
    """A rebuild of the copy's hot state is none of the live one's: its generation stays."""
    copy = directory.with_name("copy")
    with serving(directory) as live:
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*.sock"))

        rebuilt = tokencap(copy, "ledger", "recover")

        assert rebuilt.returncode == 0, rebuilt.stderr
        assert DataDir(copy).remembered().children == ()
        assert all(child.process.is_running() for child in live.children())


async def test_a_valkey_of_another_directory_is_neither_used_nor_shut_down(directory: Path) -> None:
    """Whatever path leads to its socket: who works in another directory is not ours."""
    other = directory.with_name("other")
    other.mkdir()
    with serving(directory) as live:
        socket = Path(str(live.data.remembered().socket))
        link = other / "valkey.sock"
        link.hardlink_to(socket)

        assert await valkey.is_listening(link, directory / "valkey")
        assert not await valkey.is_listening(link, other)
        await valkey.shut_down(link, other)

        assert all(child.process.is_running() for child in live.children())


def test_every_file_of_a_data_directory_is_its_owners_alone(directory: Path) -> None:
    """Also where the directory was there before with other modes: database, Valkey's files, sheets, sockets, locks."""
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    with serving(directory) as gateway:
        rig = gateway.rig(gateway.admin_token())
        rig.tier("only", conversation_tokens_max=50, price_nanousd=1_000)
        assert _streamed(gateway.url, rig.customer("only")).is_success
        found = [directory, *directory.rglob("*")]
        modes = {str(one.relative_to(directory)): stat.S_IMODE(one.stat().st_mode) for one in found}
        folders = {str(one.relative_to(directory)) for one in found if one.is_dir()}

    open_to_others = {name: oct(mode) for name, mode in modes.items() if mode & 0o077}
    assert open_to_others == {}
    assert {mode for name, mode in modes.items() if name in folders} == {0o700}
    assert "ledger.sqlite-wal" in modes
