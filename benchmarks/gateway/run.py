"""Side by side: this gateway with everything on, the same gateway without metering, and other proxies.

python -m benchmarks.gateway.run --rounds 5 --seconds 4 --json result.json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gateway.metering_peers import metering
from benchmarks.gateway.ours import Subject, tokencap
from benchmarks.gateway.peers import Start, installed
from benchmarks.gateway.processes import cpu_s, free_port, memory_mb, running, until_listening
from benchmarks.gateway.scenarios import SCENARIOS, Scenario

HERE = Path(__file__).parent
PROXY_CORE, LOAD_CORE = 0, 1
WARM_S = 1.0


@dataclass(frozen=True)
class Rig:
    """The programs of the load and of the upstream, which are not the bottleneck."""

    load: Path
    upstream: Path


def build(directory: Path) -> Rig:
    """Compile the load and the upstream."""
    programs = {name: directory / name for name in ("load", "upstream")}
    for name, program in programs.items():
        subprocess.run(["cc", "-O2", "-o", program, HERE / f"{name}.c"], check=True)
    return Rig(**programs)


@contextmanager
def _floor(upstream: int, directory: Path, core: int) -> Iterator[Subject]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.gateway.floor", str(port), str(upstream)]
    with running(command, core, log=directory / "floor.log") as pid:
        until_listening(port)
        yield Subject(port, {}, {"gateway": [pid]})


@contextmanager
def _direct(upstream: int, directory: Path, core: int) -> Iterator[Subject]:
    """Put nothing between the load and the upstream."""
    yield Subject(upstream, {}, {})


def subjects() -> dict[str, Start]:
    """Return all subjects of the comparison, by name."""
    return {
        "direct": _direct,
        **installed(),
        **metering(LOAD_CORE),
        "unmetered": _floor,
        "tokencap": partial(tokencap, apart=LOAD_CORE, fsync="everysec"),
        "tokencap-always": partial(tokencap, apart=LOAD_CORE, fsync="always"),
        "tokencap-unbatched": partial(tokencap, apart=LOAD_CORE, fsync="everysec", settings={"REDIS_BATCHES": "false"}),
        "tokencap-2": partial(tokencap, apart=LOAD_CORE, fsync="everysec", settings={"WORKERS": "2"}),
    }


def measure(rig: Rig, subject: Subject, scenario: Scenario, seconds: float, directory: Path) -> dict[str, float]:
    """Load one subject and return its cost per call, or per event of a stream, by parts."""
    request = directory / "request"
    request.write_bytes(scenario.request(subject.headers))
    before = {part: cpu_s(pids) for part, pids in subject.parts.items()}
    words: list[str | Path] = [rig.load, str(subject.port), str(scenario.connections), str(seconds), request]
    load = subprocess.Popen(["taskset", "-c", str(LOAD_CORE), *words], stdout=subprocess.PIPE, text=True)
    time.sleep(seconds / 2)
    memory = {f"{part}_mb": memory_mb(pids) for part, pids in subject.parts.items()}
    output, _ = load.communicate()
    after = {part: cpu_s(pids) for part, pids in subject.parts.items()}
    result: dict[str, Any] = json.loads(output)
    if result["others"] or result["failed"] or not result["served"]:
        raise SystemExit(f"{scenario.name}: not every call on port {subject.port} was served: {result}")
    served = result["events"] if scenario.stream else result["served"]
    cost = {f"{part}_us": 1e6 * (after[part] - before[part]) / served for part in before}
    rates = {"per_s": served / result["seconds"], "load_cpu_share": result["cpu_s"] / result["seconds"]}
    latencies = {name: result[name] for name in ("call_p50_us", "call_p99_us", "first_p50_us")}
    return {**cost, **rates, **latencies, **memory}


def run(chosen: Mapping[str, Start], scenarios: list[Scenario], rounds: int, seconds: float) -> dict[str, Any]:
    """Measure all subjects in turn, round after round; return every round of every figure."""
    figures_by_subject: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    with tempfile.TemporaryDirectory(prefix="bench") as root:
        rig = build(Path(root))
        for scenario in scenarios:
            with ExitStack() as stack:
                port = free_port()
                upstream: list[str | Path] = [rig.upstream, str(port), str(scenario.events), str(scenario.gap_us)]
                stack.enter_context(running(upstream, LOAD_CORE))
                until_listening(port)
                started: dict[str, Subject] = {}
                at_rest: dict[str, float] = {}
                for name, start in chosen.items():
                    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b", dir=root)))
                    started[name] = stack.enter_context(start(port, directory, PROXY_CORE))
                    at_rest[name] = memory_mb(started[name].parts.get("gateway", []))
                    measure(rig, started[name], scenario, WARM_S, Path(root))
                for number in range(rounds):
                    for name, subject in started.items():
                        figures = measure(rig, subject, scenario, seconds, Path(root))
                        grown_mb = figures.get("gateway_mb", 0) - at_rest[name]
                        figures["kb_per_connection"] = 1024 * grown_mb / scenario.connections
                        for figure, value in figures.items():
                            figures_by_subject[scenario.name][name][figure].append(value)
                    print(f"{scenario.name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    plain: dict[str, Any] = json.loads(json.dumps(figures_by_subject))
    return plain


def table(figures_by_subject: dict[str, Any]) -> str:
    """Return the medians as Markdown, with the least and the most of ``gateway_us`` in brackets."""
    columns = (
        "gateway_us",
        "redis_us",
        "books_us",
        "per_s",
        "call_p50_us",
        "call_p99_us",
        "gateway_mb",
        "kb_per_connection",
    )
    lines = []
    for scenario, by_subject in figures_by_subject.items():
        lines += [f"\n**{scenario}**\n", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for subject, figures in by_subject.items():
            cells = [_cell(name, figures.get(name)) for name in columns]
            lines.append(f"| {subject} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(name: str, values: list[float] | None) -> str:
    if not values:
        return ""
    middle = statistics.median(values)
    median_text = f"{middle:,.1f}" if middle < 1000 else f"{middle:,.0f}"
    return f"{median_text} ({min(values):,.1f}–{max(values):,.1f})" if name == "gateway_us" else median_text


def main() -> None:
    everything = subjects()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--subjects", help=f"some of: {', '.join(everything)}", default=",".join(everything))
    parser.add_argument("--scenarios", default="", help="parts of names, with commas between")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if shutil.which("cc") is None or (os.cpu_count() or 1) < 2:
        raise SystemExit("This needs a C compiler and two cores.")
    scenarios = [
        scenario for scenario in SCENARIOS if any(part in scenario.name for part in arguments.scenarios.split(","))
    ]
    requested = arguments.subjects.split(",")
    if absent := [name for name in requested if everything.get(name) is None]:
        parser.error(f"not on this machine: {', '.join(absent)}; there are {', '.join(everything)}")
    if not scenarios:
        parser.error(f"no scenario has this in its name; there are {', '.join(known.name for known in SCENARIOS)}")
    chosen = {name: start for name in requested if (start := everything[name]) is not None}
    figures = run(chosen, scenarios, arguments.rounds, arguments.seconds)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
