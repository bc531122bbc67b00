"""``tokencap demo`` shows the whole loop by itself: a market is priced, sold, capped, metered, charged, and compared."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.gateway.cli.commands import COMMAND, started
from tests.gateway.cli.prefork import Started, forks


@dataclass(frozen=True)
class Demo:
    """A running demo, and what it prints."""

    process: subprocess.Popen[bytes] | Started
    output: IO[str]

    def until_line(self, start: str) -> str:
        """Read up to a line that begins with ``start``, and return that line."""
        return next(line for line in self.output if line.startswith(start))

    def rest(self) -> tuple[str, int]:
        """Read to the end; return what was printed and the exit code."""
        return self.output.read(), self.process.wait()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)


@contextmanager
def demo(*options: str, cwd: Path, program: tuple[str, ...] | None = None) -> Iterator[Demo]:
    """Run the demo; a test that fails leaves none behind."""
    out, out_end = os.pipe()
    words = ["demo", "--port", "0", *options]
    process = started(program, words, dict(os.environ), cwd, out_end, os.dup(2))
    with os.fdopen(out, encoding="utf-8") as output:
        try:
            yield Demo(process, output)
        finally:
            process.terminate()
            process.wait()


def paste(curl: str) -> httpx.Response:
    """Send what the printed ``curl`` line would send."""
    words = shlex.split(curl)
    assert words[:2] == ["curl", "-N"]
    headers = dict(words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H")
    return httpx.post(words[2], headers=headers, content=words[words.index("-d") + 1], timeout=30)


def test_the_demo_ends_by_itself_and_everything_agrees(tmp_path: Path) -> None:
    """Customers did what the menu expects, the pasted line works meanwhile, ledger and model agree to the token."""
    with demo("--seconds", "14", cwd=tmp_path, program=COMMAND) as running:
        answer = paste(running.until_line("curl"))
        rest, code = running.rest()

    calls, tokens, capped = re.findall(r"(\d+) calls .*; (\d+) tokens; (\d+) at their cap; .* USD charged", rest)[-1]
    compared = re.search(r"^(\d+) conversations in the ledger", rest, re.MULTILINE)
    ledger, model = (re.search(rf"^{side} +(\d+) (.+)", rest, re.MULTILINE) for side in ("ledger", "model"))
    assert answer.status_code == 200
    assert "This" in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    assert min(int(calls), int(tokens), int(capped)) > 0
    assert compared is not None
    assert ledger is not None
    assert model is not None
    assert (ledger[1], ledger[2]) == (model[1], model[2])
    assert int(ledger[1]) == int(compared[1]) + 1  # the pasted one is no simulated customer's
    assert "\nEach of them was charged the price of its tier, once.\n" in rest
    assert "Off by more than" not in rest  # on a slow machine these may be too few to judge by
    assert rest.endswith("Ledger = model, to the token.\n")
    assert code == 0


def test_the_menu_on_sale_was_computed_and_chosen_from(tmp_path: Path) -> None:
    """Nothing is typed by hand: what is sold is the certified menu, and its customers chose their tiers themselves."""
    with demo("--no-traffic", "--data-dir", "kept", cwd=tmp_path) as running:
        token = running.until_line("Admin token").split()[-1]
        base = httpx.URL(shlex.split(running.until_line("curl"))[2]).copy_with(raw_path=b"/")
        with httpx.Client(base_url=base, headers={"authorization": f"Bearer {token}"}) as operator:
            [menu] = operator.get("/admin/menus").json()["data"]
            customers = operator.get("/admin/customers").json()["data"]
            changes = operator.get("/admin/audit", params={"limit": 1000}).json()["data"]
        running.interrupt()
        running.rest()

    computed = json.loads((tmp_path / "kept" / "menu.json").read_text())
    choices = [change for change in changes if change["action"] == "customer.tier"]
    assert (menu["version"], menu["source"], menu["in_force"]) == (computed["version"], "mechanism", True)
    assert menu["tiers"] == ["quick", "standard", "unlimited"]
    assert {customer["tier"] for customer in customers} == {"quick", "standard", "unlimited", None}
    assert len(choices) == sum(customer["tier"] is not None for customer in customers)
    assert all(change["actor"] == change["target"] for change in choices)


def test_ctrl_c_ends_it_cleanly_and_a_kept_directory_can_be_used_again(tmp_path: Path) -> None:
    """An interrupt stops the traffic, settles and compares; the same customers come back on the same data."""
    customers = []
    for _ in range(2):
        with demo("--data-dir", "kept", cwd=tmp_path) as running:
            token = running.until_line("Admin token").split()[-1]
            curl = running.until_line("curl")
            base = httpx.URL(shlex.split(curl)[2]).copy_with(raw_path=b"/admin/customers")
            listed = httpx.get(base, headers={"authorization": f"Bearer {token}"}).json()
            customers.append({customer["id"] for customer in listed["data"]})
            running.interrupt()
            rest, code = running.rest()

        assert "Ledger = model, to the token." in rest
        assert code == 0
    assert customers[0] == customers[1]
    assert (tmp_path / "kept" / "ledger.sqlite").exists()


def test_settings_of_a_real_installation_are_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A ``tokencap.toml`` beside it, be it for another database or unreadable, is not looked at."""
    (tmp_path / "tokencap.toml").write_text('database_url = "postgresql://nowhere.invalid/real"\nport = "none"\n')

    with demo("--seconds", "0", "--no-traffic", cwd=tmp_path) as running:
        printed, code = running.rest()

    assert printed.endswith("Ledger = model, to the token.\n"), capfd.readouterr().err
    assert code == 0


def test_a_port_in_use_is_one_sentence_and_exit_3(tmp_path: Path) -> None:
    """Nothing is started where the gateway could not be reached."""
    with demo("--no-traffic", cwd=tmp_path) as running:
        port = str(httpx.URL(shlex.split(running.until_line("curl"))[2]).port)
        second = forks().run(["demo", "--port", port], dict(os.environ), tmp_path, None, 60)

    assert second.returncode == 3
    assert port in second.stderr.splitlines()[-1]
    assert "Traceback" not in second.stderr
