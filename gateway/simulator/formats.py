"""The wire formats of the simulated model, by path: how each is read, written whole, streamed and refused."""

from __future__ import annotations

from typing import Protocol

from gateway.errors import TokencapError
from gateway.simulator import completions, embeddings, messages, request, responses
from gateway.simulator.engines import Quirks
from gateway.simulator.reply import Chunks, Reply, to_json
from gateway.simulator.request import CheckedRequest


class Stream(Protocol):
    """The events of one answer."""

    def up_to(self, step: int) -> bytes:
        """Return the events of the steps after the last written step, up to ``step``."""

    def ending(self) -> bytes:
        """Return the events after the last token."""


class Format:
    """Chat completions; the other formats override the methods that differ."""

    prefix = "chatcmpl-"
    """The prefix of its answers' ids."""
    embeds = False
    """Whether the format is for the embedding model."""

    def read(self, body: bytes, model: str, context_tokens: int) -> CheckedRequest:
        return request.read(body, model, context_tokens)

    def whole(self, reply: Reply, checked: CheckedRequest) -> bytes:
        return reply.whole()

    def stream(self, reply: Reply, checked: CheckedRequest) -> Stream:
        return Chunks(reply, checked.include_usage, checked.continuous_usage)

    def error(self, error: TokencapError, quirks: Quirks) -> bytes:
        return to_json(quirks.error(error))


class Legacy(Format):
    prefix = "cmpl-"

    def read(self, body: bytes, model: str, context_tokens: int) -> CheckedRequest:
        return completions.read(body, model, context_tokens)

    def whole(self, reply: Reply, checked: CheckedRequest) -> bytes:
        return completions.whole(reply)

    def stream(self, reply: Reply, checked: CheckedRequest) -> Stream:
        return completions.LegacyChunks(reply, checked.include_usage, checked.continuous_usage)


class Responses(Format):
    prefix = "resp_"

    def read(self, body: bytes, model: str, context_tokens: int) -> CheckedRequest:
        return responses.read(body, model, context_tokens)

    def whole(self, reply: Reply, checked: CheckedRequest) -> bytes:
        return responses.whole(reply)

    def stream(self, reply: Reply, checked: CheckedRequest) -> Stream:
        return responses.Events(reply)


class Messages(Format):
    prefix = "msg_"

    def read(self, body: bytes, model: str, context_tokens: int) -> CheckedRequest:
        return messages.read(body, model, context_tokens)

    def whole(self, reply: Reply, checked: CheckedRequest) -> bytes:
        return messages.whole(reply)

    def stream(self, reply: Reply, checked: CheckedRequest) -> Stream:
        return messages.Events(reply)

    def error(self, error: TokencapError, quirks: Quirks) -> bytes:
        return messages.error(error)


class CountTokens(Messages):
    def read(self, body: bytes, model: str, context_tokens: int) -> CheckedRequest:
        return messages.read_count(body, model, context_tokens)

    def whole(self, reply: Reply, checked: CheckedRequest) -> bytes:
        return to_json({"input_tokens": reply.prompt_tokens})


class Embeddings(Format):
    prefix = "embd-"
    embeds = True

    def read(self, body: bytes, model: str, context_tokens: int) -> CheckedRequest:
        return embeddings.read(body, model, context_tokens)

    def whole(self, reply: Reply, checked: CheckedRequest) -> bytes:
        return embeddings.whole(reply, checked)


FORMATS: dict[str, Format] = {
    "/v1/chat/completions": Format(),
    "/v1/completions": Legacy(),
    "/v1/responses": Responses(),
    "/v1/messages": Messages(),
    "/v1/messages/count_tokens": CountTokens(),
    "/v1/embeddings": Embeddings(),
}
