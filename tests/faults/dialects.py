"""The same answer in every format: turns the chunks of a chat completion into the events of each format."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


class Chat:
    """Chat completions, whose chunks are sent unchanged."""

    endpoint = "/v1/chat/completions"

    @staticmethod
    def request(script: Json) -> Json:
        """Return a request's body; the model reads its script in a field that passes the gateway unchanged."""
        return {"messages": [{"role": "user", "content": "Hello"}], "metadata": script}

    @staticmethod
    def limit(most: int) -> Json:
        return {"max_tokens": most}

    @staticmethod
    def ends_well(text: str) -> bool:
        """Return whether a caller's stream came to its proper end."""
        return text.endswith("data: [DONE]\n\n")

    def event(self, chunk: Json) -> bytes:
        return b"data: " + _dumps(chunk) + b"\n\n"

    def done(self) -> bytes:
        return b"data: [DONE]\n\n"

    def whole(self, answer: Json) -> Json:
        return answer


class Completions(Chat):
    endpoint = "/v1/completions"

    @staticmethod
    def request(script: Json) -> Json:
        return {"prompt": "Hello", "suffix": json.dumps(script)}

    def event(self, chunk: Json) -> bytes:
        choices = [self._choice(choice, choice["delta"]) for choice in chunk.get("choices", ())]
        return super().event({**chunk, "choices": choices} if "choices" in chunk else chunk)

    def whole(self, answer: Json) -> Json:
        choices = [self._choice(choice, choice["message"]) for choice in answer["choices"]]
        return {**answer, "object": "text_completion", "choices": choices}

    @staticmethod
    def _choice(choice: Json, message: Json) -> Json:
        reason = choice["finish_reason"]
        return {"index": choice["index"], "text": message.get("content") or "", "finish_reason": reason}


class Named:
    """Formats whose events have names, and whose last event says how the answer ended and what it used."""

    def __init__(self) -> None:
        self._is_open = False
        self._text = ""
        self._call: Json | None = None
        self._reason: str | None = None
        self._usage: Any = None
        self._has_usage = False

    def event(self, chunk: Json) -> bytes:
        if "error" in chunk:
            return self.broken(chunk["error"])
        events: list[Json] = []
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if "role" in delta:
                events += self.begun()
            if delta.get("content") or delta.get("tool_calls"):
                events += self._grown(delta)
            if choice["finish_reason"]:
                self._reason = choice["finish_reason"]
                events += self.closed() if self._is_open else []
        if not chunk["choices"]:
            self._usage, self._has_usage = chunk["usage"], True
        return b"".join(_named(event) for event in events)

    def _grown(self, delta: Json) -> list[Json]:
        events: list[Json] = []
        call = delta["tool_calls"][0] if delta.get("tool_calls") else None
        piece = call["function"]["arguments"] if call else delta["content"]
        if not self._is_open:
            self._is_open = True
            self._call = call
            events += self.opened()
        self._text += piece
        return [*events, self.grown(piece)]

    def begun(self) -> list[Json]:
        raise AssertionError

    def opened(self) -> list[Json]:
        raise AssertionError

    def grown(self, piece: str) -> Json:
        raise AssertionError

    def closed(self) -> list[Json]:
        raise AssertionError

    def broken(self, error: Json) -> bytes:
        raise AssertionError


class Responses(Named):
    endpoint = "/v1/responses"

    @staticmethod
    def request(script: Json) -> Json:
        return {"input": "Hello", "metadata": script}

    @staticmethod
    def limit(most: int) -> Json:
        return {"max_output_tokens": most}

    @staticmethod
    def ends_well(text: str) -> bool:
        return text.rpartition("\nevent: ")[2].startswith(("response.completed\n", "response.incomplete\n"))

    def begun(self) -> list[Json]:
        return [{"type": "response.created", "response": self._response("in_progress")}]

    def opened(self) -> list[Json]:
        events: list[Json] = [{"type": "response.output_item.added", "output_index": 0, "item": self._item("")}]
        if self._call is None:
            part = {"type": "output_text", "text": ""}
            at = {"item_id": "item_truth", "output_index": 0, "content_index": 0}
            events.append({"type": "response.content_part.added", **at, "part": part})
        return events

    def grown(self, piece: str) -> Json:
        kind = "output_text" if self._call is None else "function_call_arguments"
        at = {"item_id": "item_truth", "output_index": 0, "content_index": 0}
        return {"type": f"response.{kind}.delta", **at, "delta": piece}

    def closed(self) -> list[Json]:
        return [{"type": "response.output_item.done", "output_index": 0, "item": self._item(self._text)}]

    def broken(self, error: Json) -> bytes:
        return _named({"type": "error", "code": str(error["code"]), "message": error["message"]})

    def done(self) -> bytes:
        status = "incomplete" if self._reason in ("length", "content_filter") else "completed"
        response = self._response(status)
        return _named({"type": f"response.{status}", "response": response})

    def whole(self, answer: Json) -> Json:
        [choice] = answer["choices"]
        message, self._is_open, self._reason = choice["message"], True, choice["finish_reason"]
        [self._call] = message.get("tool_calls") or [None]
        self._text = self._call["function"]["arguments"] if self._call else message["content"]
        self._usage, self._has_usage = answer.get("usage"), "usage" in answer
        return self._response("incomplete" if self._reason in ("length", "content_filter") else "completed")

    def _item(self, text: str) -> Json:
        if self._call is not None:
            named = {"call_id": self._call["id"], "name": "f", "arguments": text}
            return {"id": "item_truth", "type": "function_call", **named}
        content = [{"type": "output_text", "text": text}] if text else []
        return {"id": "item_truth", "type": "message", "role": "assistant", "status": "completed", "content": content}

    def _response(self, status: str) -> Json:
        reason = {"length": "max_output_tokens"}.get(str(self._reason), self._reason)
        response = {"id": "resp_truth", "object": "response", "status": status, "model": "upstream"}
        response |= {"incomplete_details": {"reason": reason} if status == "incomplete" else None}
        output = [self._item(self._text)] if self._is_open and status != "in_progress" else []
        usage = {"usage": _renamed(self._usage)} if self._has_usage else {}
        return {**response, "output": output, **usage}


class Messages(Named):
    endpoint = "/v1/messages"

    @staticmethod
    def request(script: Json) -> Json:
        return {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10_000, "metadata": script}

    @staticmethod
    def limit(most: int) -> Json:
        return {"max_tokens": most}

    @staticmethod
    def ends_well(text: str) -> bool:
        return text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')

    def begun(self) -> list[Json]:
        return [{"type": "message_start", "message": self._message([], {"input_tokens": 7, "output_tokens": 1})}]

    def opened(self) -> list[Json]:
        return [{"type": "content_block_start", "index": 0, "content_block": self._block("")}]

    def grown(self, piece: str) -> Json:
        text = {"type": "text_delta", "text": piece}
        delta = text if self._call is None else {"type": "input_json_delta", "partial_json": piece}
        return {"type": "content_block_delta", "index": 0, "delta": delta}

    def closed(self) -> list[Json]:
        return [{"type": "content_block_stop", "index": 0}]

    def broken(self, error: Json) -> bytes:
        return _named({"type": "error", "error": {"type": "api_error", "message": error["message"]}})

    def event(self, chunk: Json) -> bytes:
        written = super().event(chunk)
        return written if chunk.get("choices") != [] else written + self._ended()

    def done(self) -> bytes:
        return (b"" if self._has_usage else self._ended()) + _named({"type": "message_stop"})

    def whole(self, answer: Json) -> Json:
        [choice] = answer["choices"]
        [self._call] = choice["message"].get("tool_calls") or [None]
        usage = {"usage": _renamed(answer["usage"])} if "usage" in answer else {"usage": None}
        reason = {"stop_reason": _reason(choice["finish_reason"])}
        return {**self._message([self._block(choice["message"]["content"])], None), **reason, **usage}

    def _ended(self) -> bytes:
        delta = {"stop_reason": _reason(self._reason), "stop_sequence": None}
        usage = {"usage": _renamed(self._usage)} if self._has_usage else {}
        return _named({"type": "message_delta", "delta": delta, **usage})

    def _block(self, text: str | None) -> Json:
        if self._call is not None:
            arguments = json.loads(self._call["function"]["arguments"]) if text is None else {}
            return {"type": "tool_use", "id": self._call["id"], "name": "f", "input": arguments}
        return {"type": "text", "text": text}

    def _message(self, content: list[Json], usage: Any) -> Json:
        fixed = {"id": "msg_truth", "type": "message", "role": "assistant", "model": "upstream"}
        return {**fixed, "content": content, "stop_reason": None, "usage": usage}


DIALECTS: dict[str, type[Chat] | type[Responses] | type[Messages]] = {
    dialect.endpoint: dialect for dialect in (Chat, Completions, Responses, Messages)
}


def _reason(reason: str | None) -> str | None:
    named = {"length": "max_tokens", "stop": "end_turn", "tool_calls": "tool_use", "content_filter": "refusal"}
    return named.get(str(reason), reason)


def _renamed(usage: Any) -> Any:
    if not isinstance(usage, dict):
        return usage
    return {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}


def _named(event: Json) -> bytes:
    return b"event: " + event["type"].encode() + b"\ndata: " + _dumps(event) + b"\n\n"


def _dumps(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
