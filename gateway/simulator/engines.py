"""How the engines that the simulated model imitates differ: what they accept, ignore, refuse and report."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gateway.errors import BadRequest, TokencapError

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, COUNT_TOKENS, EMBEDDINGS = "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings"
EVERYTHING = frozenset({CHAT, COMPLETIONS, RESPONSES, MESSAGES, COUNT_TOKENS, EMBEDDINGS})
ENGINES_OWN = frozenset({"n_predict", "num_predict", "max_new_tokens", "top_k", "min_p", "repetition_penalty"})

TOKEN = re.compile(r" ?\w+|[^\w\s]")
"""A token of the simulated model's words."""


@dataclass(frozen=True, slots=True)
class Quirks:
    """One kind of engine."""

    owner: str = "tokencap-simulator"
    """The owner of the model, in its list of models."""
    speaks: frozenset[str] = EVERYTHING
    ignores: frozenset[str] = frozenset()
    """Fields that have no effect."""
    refuses: frozenset[str] = frozenset()
    """Fields that are refused with a 400."""
    has_numeric_code: bool = False
    has_flat_errors: bool = False
    continuous_usage: bool = True
    tokenizes: str | None = None
    """The field of its ``/tokenize``, where it has one."""
    names_length: bool = False
    """Whether its list of models has the model's length, and a longer limit is refused."""

    def without_ignored(self, body: bytes) -> bytes:
        """Return a body without the fields that this engine ignores.

        Raises:
            BadRequest: the body has a field that this engine does not know.
        """
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):
            return body  # the format's reader refuses it
        if not isinstance(payload, dict) or not (self.ignores | self.refuses) & payload.keys():
            return body
        if unknown := sorted(self.refuses & payload.keys()):
            raise BadRequest(f"Unrecognized request argument supplied: {unknown[0]}", param=unknown[0])
        return json.dumps({name: value for name, value in payload.items() if name not in self.ignores}).encode()

    def error(self, error: TokencapError) -> dict[str, Any]:
        """Return a refusal in this engine's variant of OpenAI's shape."""
        body = error.body()
        if self.has_numeric_code:
            body["error"] |= {"code": error.status, "type": "BadRequestError"}
        return {"object": "error", **body["error"]} if self.has_flat_errors else body

    def tokenize(self, body: bytes) -> dict[str, Any]:
        """Return the tokens of a text, numbered in their order."""
        payload = json.loads(body)
        tokens = TOKEN.findall(str(payload.get(self.tokenizes)))
        return {"count": len(tokens), "tokens": list(range(len(tokens)))}


QUIRKS = {
    "any": Quirks(),
    "openai": Quirks(
        owner="system",
        speaks=EVERYTHING - {MESSAGES, COUNT_TOKENS},
        refuses=ENGINES_OWN,
        continuous_usage=False,
    ),
    "vllm": Quirks(owner="vllm", has_numeric_code=True, tokenizes="prompt", names_length=True),
    "sglang": Quirks(
        owner="sglang", has_numeric_code=True, has_flat_errors=True, tokenizes="prompt", names_length=True
    ),
    "llamacpp": Quirks(owner="llamacpp", has_numeric_code=True, continuous_usage=False, tokenizes="content"),
    "ollama": Quirks(
        owner="library",
        speaks=EVERYTHING - {COUNT_TOKENS},
        ignores=frozenset({"max_completion_tokens", "n", "n_predict"}),
        continuous_usage=False,
    ),
}
