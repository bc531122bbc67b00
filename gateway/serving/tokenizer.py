"""Counts tokens that the upstream did not count, and counts a random share of the others again as a check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

import httpx

from gateway.errors import StartupError
from gateway.metrics.counters import Counters
from gateway.metrics.definitions import RECOUNTED
from gateway.serving.meter import count
from gateway.serving.upstream.endpoint import Endpoint, json_of

WAIT_S = 5.0
"""How long a tokenizer may take for a count. After the last tokenizer the gateway's own count is used."""

TOKENS_MOST = 64 * 2**20
"""The most bytes of the upstream's answer to a count, which may list all the tokens."""

EXTRA = "install tokencap[tokenizers] for it"


class Tokenizer(Protocol):
    """Counts tokens as the model does."""

    async def count(self, text: str) -> int | None:
        """Return the number of tokens of a text, or None while the count is unavailable."""


class UpstreamTokenizer:
    """The upstream's ``/tokenize``, a sibling of its ``/v1``."""

    def __init__(self, client: httpx.AsyncClient, endpoint: Endpoint, *, model: str, field: str) -> None:
        self._client = client
        self._url = endpoint.beside("/tokenize")
        self._headers = dict(endpoint.headers)
        self._body = {"model": model, "add_special_tokens": False, "add_special": False}
        self._field = field

    async def count(self, text: str) -> int | None:
        body = {**self._body, self._field: text.encode("utf-8", "replace").decode()}
        try:
            request = self._client.build_request("POST", self._url, json=body, headers=self._headers, timeout=WAIT_S)
            answer = await json_of(self._client, request, TOKENS_MOST)
        except (httpx.HTTPError, ValueError):
            return None
        if not isinstance(answer, dict):
            return None
        tokens = answer.get("tokens")
        return len(tokens) if isinstance(tokens, list) else count(answer.get("count"))


class LocalTokenizer:
    """A tokenizer in this process; it counts in a thread."""

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._encode = encode

    async def count(self, text: str) -> int | None:
        readable = text.encode("utf-8", "replace").decode()
        return len(await asyncio.to_thread(self._encode, readable))


def read_tokenizer(source: str) -> LocalTokenizer:
    """Return the tokenizer in a file ``tokenizer.json``, or the tokenizer of an OpenAI vocabulary by its name.

    Raises:
        StartupError: there is no such tokenizer, or the library that reads it is not installed.
    """
    if source.endswith(".json"):
        if not Path(source).is_file():
            raise StartupError(f"TOKENCAP_TOKENIZER: there is no file {source}.", exit_code=2)
        try:
            tokenizer = import_module("tokenizers").Tokenizer.from_file(source)
        except ImportError as error:
            raise StartupError(f"TOKENCAP_TOKENIZER: {EXTRA}.", exit_code=2) from error
        except Exception as error:
            raise StartupError(f"TOKENCAP_TOKENIZER: {source} cannot be read: {error}.", exit_code=2) from error
        return LocalTokenizer(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
    try:
        vocabularies = import_module("bpe_openai")
    except ImportError as error:
        raise StartupError(f"TOKENCAP_TOKENIZER: {EXTRA}.", exit_code=2) from error
    if source not in vocabularies.list_encoding_names():
        known = ", ".join(sorted(vocabularies.list_encoding_names()))
        raise StartupError(f"TOKENCAP_TOKENIZER is a tokenizer.json, or one of {known}.", exit_code=2)
    vocabulary = vocabularies.get_encoding(source)
    return LocalTokenizer(vocabulary.encode_ordinary)


class TokenCounter:
    """The tokenizers, in the order in which they are tried."""

    def __init__(self, *tokenizers: Tokenizer) -> None:
        self._tokenizers = tokenizers
        self.can_count = bool(tokenizers)
        """Whether there is a tokenizer. If so, the text of answers is kept until it is counted."""

    async def count(self, texts: Sequence[str]) -> int | None:
        """Return the number of tokens of these texts together, or None where no tokenizer can count them."""
        for tokenizer in self._tokenizers:
            try:
                async with asyncio.timeout(WAIT_S):
                    counts = [await tokenizer.count(text) for text in texts]
            except TimeoutError:
                continue
            known = [tokens for tokens in counts if tokens is not None]
            if len(known) == len(texts):
                return sum(known)
        return None


AT_ONCE_MOST = 8
"""The most answers that are counted again at a time; further answers are skipped."""


class SpotChecks:
    """Adds up the upstream's figure and the tokenizer's for the same texts, in the background: no caller waits.

    Args:
        tokenizer: the operator's own, not the upstream's.
        share: the share of answers that are counted again, from 0 to 1.
        chance: returns a new random number from 0 to 1 each time.
    """

    def __init__(
        self, tokenizer: TokenCounter, *, share: float, counters: Counters, chance: Callable[[], float]
    ) -> None:
        self._tokenizer = tokenizer
        self._share = share if tokenizer.can_count else 0.0
        self._counters = counters
        self._chance = chance
        self._running: set[asyncio.Task[None]] = set()

    def picks(self) -> bool:
        """Return whether the next answer is counted again."""
        return self._share > 0 and self._chance() < self._share

    def compare(self, reported: int, texts: Sequence[Sequence[str]]) -> None:
        """Start counting the texts of an answer's choices; add both the count and the upstream's figure to the metrics."""
        if len(self._running) < AT_ONCE_MOST:
            task = asyncio.create_task(self._compare(reported, ["".join(pieces) for pieces in texts]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _compare(self, reported: int, texts: list[str]) -> None:
        counted = await self._tokenizer.count(texts)
        if counted is not None:
            self._counters.add(RECOUNTED, "upstream", amount=reported)
            self._counters.add(RECOUNTED, "tokenizer", amount=counted)
