"""Reads one answer as it comes in, in any dialect: counts it, cuts it at the grant, and recognises its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from gateway.errors import TokencapError, UpstreamError, UpstreamErrorEvent, UpstreamUnavailable
from gateway.serving.dialects.answers.surrogates import HALF, Halves
from gateway.serving.dialects.answers.thread_digests import TAIL_CHARACTERS
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.fields.answer_fields import shown_usage
from gateway.serving.json_codec import loads
from gateway.serving.meter import UNREPORTED, Observed, Usage
from gateway.serving.sse import Events, EventTooLong, NamedError, comment, is_comment
from gateway.serving.upstream.error_bodies import is_error

NO_TEXT = frozenset({"id", "type", "role", "call_id", "status", "index", "format", "signature"})
"""Strings that the model did not write, or not as text."""

TAIL_KEPT = 2 * TAIL_CHARACTERS
"""The characters kept of the end of a choice's text, whatever its length."""

TOKEN_CHARACTERS = 4
"""Characters of text to a token, where nobody counted."""

PIECE_CHARACTERS = 6
"""The most characters of a piece, on average, that may be one token: longer pieces are of several tokens."""

TOKEN_CHARACTERS_MOST = 8
"""The most characters to a token that any text has, on average, where it comes in pieces of about a token; twice that
where it comes whole, and may be anything."""


class Reading(ABC):
    """Bytes of an upstream's stream in, bytes for the caller out, and what was observed for the meter.

    A dialect adds: ``_take`` for one event, ``feed_whole`` for an answer that was not streamed, and the two ways an
    answer ends, ``ending`` for a stream and ``whole`` for a caller without a stream. An event with text for a choice is
    one token of it, unless the upstream's figure is higher.
    """

    answer_id: str | None = None
    """The answer's own id, where a later call may name it."""
    ended_by_itself = False
    """Whether the upstream brought the answer to its end."""
    failure: UpstreamError | None = None
    """The error in the last bytes; what came before it was relayed."""
    texts: list[list[str]] | None = None
    """The whole text of each choice, where it is kept: ``remember_texts``."""
    input_tokens: int | None = None
    """The gateway's own count of the input, where the upstream has none."""
    is_silent = True
    """Whether no event has come."""
    usage = UNREPORTED
    """The usage that the upstream reported."""
    _characters = 0
    _was_cut = False
    _estimate: int | None = None
    _least_of_whole = 0  # tokens that an answer that came whole has at least
    _largest_output = 0  # tokens that a choice of an answer that came whole may have
    _is_partial = False  # whether the usage leaves out choices that have reported none yet
    _is_final = False
    _figures = 0  # how many figures of the output came while more output was to come

    def __init__(self, request: Parameters, grant: int) -> None:
        self.tool_calls: list[str] = []
        """Ids of the tool calls in the answer."""
        self._request = request
        self._grant = grant
        self._granted = grant * request.choices
        self._events = Events()
        self._halves = Halves()
        self._tokens = [0] * request.choices
        self._ended: dict[int, str] = {}
        self._tails = [""] * request.choices
        self._reported_usage: dict[str, Any] = {}  # the upstream's last usage, whole

    @property
    def observed(self) -> Observed:
        """What was observed so far, and what the upstream reported of it."""
        pieces, granted = sum(self._tokens), self._granted
        is_whole = self.ended_by_itself or (self._all_ended() and not self._was_cut)
        if not pieces:
            tokens = min(self._estimate or 0, granted)
            is_estimate = self._estimate is not None
            return Observed(self.usage, tokens, self._is_final, is_whole, is_estimate, least=self._least_of_whole)
        more = max(self._characters - PIECE_CHARACTERS * pieces, 0) // TOKEN_CHARACTERS
        return Observed(
            self.usage,
            min(max(pieces + more, self.usage.output_tokens or 0 if self._is_partial else 0), granted),
            self._is_final,
            is_whole,
            is_estimate=more > 0,
            least=min(pieces, self._by_length()),
            surely=min(max(pieces, self._by_length()), granted),
            is_partial=self._is_partial,
        )

    def _by_length(self) -> int:
        """The least tokens of a text of this length, unless it is a drawing."""
        return self._characters // TOKEN_CHARACTERS_MOST

    @property
    def has_begun(self) -> bool:
        """Whether a token of the answer was observed as it came; a whole answer shows none."""
        return any(self._tokens)

    @property
    def tails(self) -> list[str]:
        """The ends of the texts of its choices."""
        return [tail for tail in self._tails if tail]

    @property
    def item_ids(self) -> list[str]:
        """Ids of parts of the answer that a later call may refer to."""
        return []

    @property
    def reasons(self) -> list[str]:
        """The end of each ended choice, in the words of a chat completion."""
        return list(self._ended.values())

    @property
    def uses_whole_grant(self) -> bool:
        """Whether a choice has used up its grant.

        Tokens of the usage beyond the observed text belong to the choices that their limit ended; where nothing was
        observed, each choice has an equal part.
        """
        reported, counted = self.usage.output_tokens or 0, sum(self._tokens)
        longest = max((self._tokens[index] for index, reason in self._ended.items() if reason == "length"), default=0)
        most = longest + max(reported - counted, 0) if counted else -(-reported // self._request.choices)
        return self._was_cut or max(most, self._largest_output) >= self._grant

    def is_over(self) -> bool:
        """Return whether nothing more is wanted of the answer."""
        return self.ended_by_itself or (self._was_cut and self._all_ended())

    def is_usage_known(self, is_continuous: bool) -> bool:
        """Return whether the upstream's figure of all that was made so far is known.

        A figure in the middle counts only where the upstream is known to report ``is_continuous``, or has done so.
        """
        reported = self.usage.output_tokens
        if reported is None or self._is_partial or reported < max(sum(self._tokens), self._by_length()):
            return False
        return is_continuous or self._figures > 1 or (self._is_final and self._all_ended())

    def remember_texts(self) -> None:
        """Keep all of the text, for a tokenizer to count."""
        self.texts = [[] for _ in range(self._request.choices)]

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of the stream, cut anywhere, and return those for a streaming caller, often none."""
        try:
            return self._take_all(self._events.feed(chunk))
        except EventTooLong:
            self.failure = UpstreamUnavailable("The upstream sent an event without an end.")
            return b""

    def close(self) -> bytes:
        """Note that no more bytes come: an answer whose every choice has ended is whole without its last event."""
        shown = b"" if self.failure else self._take_all(self._events.close())
        if not self.failure and not self.is_over():
            shown += self._give_up_halves()
        if self._all_ended() and not self._was_cut:
            self.ended_by_itself = True
        return shown

    @abstractmethod
    def feed_whole(self, answer: Any) -> bytes:
        """Take an answer that came whole, not as a stream; cut its text in proportion where it is over the grant."""

    def failed(self, error: TokencapError) -> bytes:
        """Return the last bytes of a stream that failed, where its dialect reports that within the answer."""
        return b""

    @abstractmethod
    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        """Return the last bytes of a stream."""

    @abstractmethod
    def whole(self, billed: int) -> Any:
        """Return the answer for a caller that does not stream."""

    @abstractmethod
    def _take(self, event: dict[str, Any]) -> bytes:
        """Take the JSON of one event and return the bytes for a streaming caller."""

    def _done(self) -> bytes:
        """Note the upstream's sign that nothing more comes; return what a streaming caller is sent for it."""
        return b""

    def _all_ended(self) -> bool:
        return len(self._ended) == self._request.choices

    def _take_all(self, events: list[bytes]) -> bytes:
        shown: list[bytes] = []
        place = 0
        if events:
            self.is_silent = False
        try:
            while place < len(events) and not self.is_over():
                taken, text = self._take_run(events, place)
                if not taken:
                    taken, text = 1, self._take_one(events[place])
                if text:
                    shown.append(text)
                place += taken
        except UpstreamError as error:
            self.failure = error
        return shown[0] if len(shown) == 1 else b"".join(shown)

    def _take_run(self, events: list[bytes], start: int) -> tuple[int, bytes]:
        """Take events from ``start`` on that differ from an earlier one in their text only; return how many."""
        return 0, b""

    def _take_one(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            shown = self._give_up_halves() + self._done()
            self.ended_by_itself = not self._was_cut
            return shown
        if isinstance(data, NamedError):
            raise UpstreamErrorEvent(_named_error(data))
        if is_comment(data):  # a sign of life for a caller that streams
            return comment(data[1:].removeprefix(b" ")) if self._request.stream else b""
        event = _event(data)
        if not self._halves.held and not HALF.search(data):
            return self._take_parsed(data, event)
        event = self._halves.joined(event)
        shown = self._give_up_halves(event)
        return shown if self.is_over() else shown + self._take_parsed(data, event)

    def _give_up_halves(self, end: dict[str, Any] | None = None) -> bytes:
        """Take as text of its own each half of a character that no other half can follow after ``end``, or at all."""
        replaced = self._halves.replaced(end) if self._halves.held else ()
        return b"".join([self._take(event) for event in replaced])

    def _take_parsed(self, data: bytes, event: dict[str, Any]) -> bytes:
        """Take a parsed event; a dialect with a fast path notes here how to recognise similar events."""
        return self._take(event)

    def _is_over_grant(self, reported: int | None) -> bool:
        """Return whether a running figure puts the text beside it beyond the grant."""
        return (reported or 0) > self._granted

    def _note_usage(self, reported: dict[str, Any], usage: Usage) -> None:
        """Take the upstream's usage; once a choice was cut, its figures count tokens that nobody gets."""
        self._reported_usage = shown_usage(reported)
        if self._was_cut:
            usage = replace(usage, output_tokens=self.usage.output_tokens)
        self.usage, self._is_final = usage, not self._was_cut
        if usage.output_tokens and not self._all_ended():
            self._figures += 1

    @property
    def _input(self) -> int:
        """The input tokens that a caller is shown."""
        for tokens in (self.input_tokens, self.usage.input_tokens):
            if tokens is not None:
                return tokens
        return self._request.input_estimate

    def _note_text(self) -> None:
        """Note text: an earlier usage was reported of the text before it."""
        if not self._all_ended():
            self._is_final = False

    def _counts(self, index: int, *, crosses: bool = False) -> bool:
        """Count a token of a choice; or cut the choice, where its grant is used up or this text ``crosses`` it."""
        if crosses or self._tokens[index] == self._grant:
            self._was_cut, self._is_final = True, False
            self._ended[index] = "length"
            return False
        self._tokens[index] += 1
        return True

    def _wrote(self, index: int, written: Any) -> None:
        """Note the new texts in a piece of a choice: their length, and the texts where they are kept."""
        self._wrote_texts(index, [written] if isinstance(written, str) else list(strings_in(written)))

    def _wrote_texts(self, index: int, texts: list[str]) -> None:
        self._characters += sum(map(len, texts))
        self._keep(index, texts)

    def _keep(self, index: int, texts: Iterable[str]) -> None:
        """Keep a choice's text, where texts are kept."""
        if self.texts is not None:
            self.texts[index] += texts

    def _remember(self, index: int, text: Any) -> None:
        """Keep the end of a choice's text: enough to recognise it, whatever its length."""
        if isinstance(text, str):
            self._tails[index] = (self._tails[index] + text)[-TAIL_KEPT:]

    def _made(self, parts: list[Any]) -> int:
        """Return the tokens of an answer that came whole: the upstream's figure, unless the texts belie it.

        Where nobody counted, the tokens are estimated, and an answer that met its limit used the grant.
        """
        texts = [part if isinstance(part, str) else "".join(strings_in(part)) for part in parts]
        self._least_of_whole = sum(map(len, texts)) // (2 * TOKEN_CHARACTERS_MOST)
        reported = self.usage.output_tokens
        if reported and reported >= self._least_of_whole:
            return reported
        self._largest_output = self._grant
        size = sum(len(part if isinstance(part, str) else str(part)) for part in parts)
        self._estimate = -(-size // TOKEN_CHARACTERS)
        return self._estimate

    def _part(self, text: str, made: int) -> str:
        """Return the granted part of a text of an answer of ``made`` tokens."""
        return text[: len(text) * self._granted // made]


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = loads(data)
    except ValueError as error:
        raise UpstreamUnavailable("The upstream sent what is not JSON.") from error
    if not isinstance(event, dict):
        raise UpstreamUnavailable("The upstream failed in the middle of its answer.")
    if is_error(event):
        raise UpstreamErrorEvent(event)
    return event


def _named_error(data: bytes) -> dict[str, Any]:
    """Return the content of an event named as an error: JSON of any shape, or words."""
    try:
        content = loads(data)
    except ValueError:
        content = data.decode("utf-8", "replace").strip()
    return content if isinstance(content, dict) and is_error(content) else {"error": content}


def strings_in(written: Any) -> Iterator[str]:
    """Yield the texts in a piece of an answer, wherever its dialect has them."""
    if isinstance(written, str):
        yield written
    elif isinstance(written, dict):
        for name, value in written.items():
            if name not in NO_TEXT:
                yield from strings_in(value)
    elif isinstance(written, list):
        for value in written:
            yield from strings_in(value)
