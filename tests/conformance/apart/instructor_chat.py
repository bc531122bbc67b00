"""instructor on ``openai``: objects, by a tool of their schema or by ``response_format``; and plain text."""

from __future__ import annotations

from typing import Any

import instructor
import openai
from pydantic import BaseModel

MODES = {"tools": instructor.Mode.TOOLS, "schema": instructor.Mode.JSON_SCHEMA}


class Thing(BaseModel):
    name: str
    length_m: float


def connect(url: str, key: str, mode: str = "tools") -> Any:
    return instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key=key), mode=MODES[mode]).chat.completions


def messages_of(question: str) -> Any:
    return [{"role": "user", "content": question}]


def complete(*, url: str, key: str, model: str, question: str) -> Any:
    answer = connect(url, key).create(model=model, messages=messages_of(question), response_model=None)
    return {"text": answer.choices[0].message.content, "was_cut": answer.choices[0].finish_reason == "length"}


def stream(*, url: str, key: str, model: str, question: str) -> Any:
    text, reason = "", None
    for chunk in connect(url, key).create(
        model=model, messages=messages_of(question), response_model=None, stream=True
    ):
        text += chunk.choices[0].delta.content or ""
        reason = chunk.choices[0].finish_reason or reason
    return {"text": text, "was_cut": reason == "length"}


def structure(*, url: str, key: str, model: str, question: str, mode: str, stream: bool) -> Any:
    client, request = (
        connect(url, key, mode),
        {"model": model, "messages": messages_of(question), "response_model": Thing},
    )
    *_, thing = client.create_partial(**request) if stream else [client.create(**request)]
    return thing.model_dump()
