"""``curl``, as the README shows it, or libcurl where the machine has no such command."""

from __future__ import annotations

import json
import shutil
import subprocess
from io import BytesIO
from typing import Any

import pycurl

from tests.conformance.client import MODEL, QUESTION, RESULT, TOOL, Answer, Refused, Where

ASKED: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
TOOLS = [{"type": "function", "function": {"name": TOOL, "parameters": {"type": "object", "properties": {}}}}]
WITH_BODY = 22
"""The exit status for a refusal with ``--fail-with-body``."""


class Client:
    endpoint = "/v1/chat/completions"
    exceptions = dict.fromkeys((401, 404, 429), f"exit {WITH_BODY}")

    def complete(self, where: Where, *, model: str = MODEL) -> Answer:
        choice = json.loads(self._run(where, {"model": model, "messages": ASKED}))["choices"][0]
        return Answer(choice["message"]["content"], choice["finish_reason"] == "length")

    def stream(self, where: Where) -> Answer:
        *events, done = self._run(where, {"model": MODEL, "messages": ASKED, "stream": True}).strip().split("\n\n")
        assert done == "data: [DONE]"
        choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        return Answer(text, choices[-1]["finish_reason"] == "length")

    def loop(self, where: Where) -> int:
        messages, results = list(ASKED), 0
        while True:
            answer = json.loads(self._run(where, {"model": MODEL, "messages": messages, "tools": TOOLS}))
            message = answer["choices"][0]["message"]
            if not message.get("tool_calls"):
                return results
            messages.append(message)
            for call in message["tool_calls"]:
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": RESULT})
                results += 1

    def _run(self, where: Where, body: dict[str, Any]) -> str:
        headers = [f"Authorization: Bearer {where.key}", "Content-Type: application/json"]
        send = _by_command if shutil.which("curl") else _by_library
        is_refused, answer = send(where.url + self.endpoint, headers, json.dumps(body))
        if is_refused:
            raise Refused(f"exit {WITH_BODY}", None, json.loads(answer)["error"]["code"])
        return answer


def _by_command(url: str, headers: list[str], body: str) -> tuple[bool, str]:
    line = [
        "curl",
        "-sS",
        "--fail-with-body",
        url,
        *(word for header in headers for word in ("-H", header)),
        "-d",
        body,
    ]
    ran = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode in (0, WITH_BODY), ran.stderr
    return ran.returncode == WITH_BODY, ran.stdout


def _by_library(url: str, headers: list[str], body: str) -> tuple[bool, str]:
    answer, asking = BytesIO(), pycurl.Curl()
    for option, value in (
        (pycurl.URL, url),
        (pycurl.HTTPHEADER, headers),
        (pycurl.POSTFIELDS, body),
        (pycurl.WRITEDATA, answer),
        (pycurl.TIMEOUT, 60),
    ):
        asking.setopt(option, value)
    asking.perform()
    status = asking.getinfo(pycurl.RESPONSE_CODE)
    asking.close()
    return status >= 400, answer.getvalue().decode()
