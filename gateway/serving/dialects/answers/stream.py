"""Reads one answer as it arrives, in any dialect: counts its tokens, cuts it at the grant, and recognises its end."""

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
"""Fields whose strings the model did not write, or did not write as text."""

TAIL_KEPT = 2 * TAIL_CHARACTERS
"""The number of characters that are kept from the end of a choice's text."""

TOKEN_CHARACTERS = 4
"""The characters of text to a token, where tokens are estimated because nobody counted them."""

PIECE_CHARACTERS = 6
"""The most characters, on average, of a piece that may be one token: longer pieces have several tokens."""

TOKEN_CHARACTERS_MOST = 8
"""The most characters to a token, on average, in a text that comes in pieces of about a token. A text that comes whole
may be of any kind: there the most is twice as many."""


class Reading(ABC):
    """Takes bytes of an upstream's stream, returns bytes for the caller, and records observations for the meter.

    A dialect adds ``_take`` for one event, ``feed_whole`` for an answer that was not streamed, and the two ends of an
    answer: ``ending`` for a stream and ``whole`` for a caller that does not stream. An event with text for a choice
    counts as one token of the choice, unless the upstream's figure is higher.
    """

    answer_id: str | None = None
    """The answer's own id, where a later call may name this id."""
    ended_by_itself = False
    """Whether the upstream brought the answer to its end."""
    failure: UpstreamError | None = None
    """The error in the last bytes; everything before the error was relayed."""
    texts: list[list[str]] | None = None
    """The whole text of each choice, kept only after ``remember_texts``."""
    input_tokens: int | None = None
    """The gateway's own count of the input, where the upstream reported no count."""
    is_silent = True
    """Whether no event has arrived."""
    usage = UNREPORTED
    """The usage that the upstream reported."""
    _characters = 0
    _was_cut = False
    _estimate: int | None = None
    _least_of_whole = 0  # the fewest tokens that an answer that came whole can have
    _largest_output = 0  # tokens of the largest choice, or the most it can have where only the sum is known
    _is_partial = False  # whether the usage lacks choices that have not reported yet
    _is_final = False
    _figures = 0  # the number of output figures that came before the end of the output

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
        self._reported_usage: dict[str, Any] = {}  # the upstream's last usage, with all fields that a caller may see

    @property
    def observed(self) -> Observed:
        """The observations so far, and the usage that the upstream reported."""
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
        """The fewest tokens that text of this length has; a drawing in characters may have fewer."""
        return self._characters // TOKEN_CHARACTERS_MOST

    @property
    def has_begun(self) -> bool:
        """Whether a token of the answer was observed in a stream; in an answer that comes whole none is observed."""
        return any(self._tokens)

    @property
    def tails(self) -> list[str]:
        """The ends of the texts of the choices that have text."""
        return [tail for tail in self._tails if tail]

    @property
    def item_ids(self) -> list[str]:
        """Ids of parts of the answer that a later call may refer to."""
        return []

    @property
    def reasons(self) -> list[str]:
        """The finish reason of each ended choice, in the terms of a chat completion."""
        return list(self._ended.values())

    @property
    def uses_whole_grant(self) -> bool:
        """Whether a choice has used up its grant.

        The tokens that the usage has beyond the observed text are attributed to the longest choice that its limit
        ended; where no text was observed, each choice has an equal part of the usage.
        """
        reported, counted = self.usage.output_tokens or 0, sum(self._tokens)
        longest = max((self._tokens[index] for index, reason in self._ended.items() if reason == "length"), default=0)
        most = longest + max(reported - counted, 0) if counted else -(-reported // self._request.choices)
        return self._was_cut or max(most, self._largest_output) >= self._grant

    def is_over(self) -> bool:
        """Return whether nothing more of the answer needs to be read."""
        return self.ended_by_itself or (self._was_cut and self._all_ended())

    def is_usage_known(self, is_continuous: bool) -> bool:
        """Return whether the upstream's figure for the whole output so far is known.

        A figure before the end counts only where the upstream is known to report running figures (``is_continuous``),
        or has already reported more than one.
        """
        reported = self.usage.output_tokens
        if reported is None or self._is_partial or reported < max(sum(self._tokens), self._by_length()):
            return False
        return is_continuous or self._figures > 1 or (self._is_final and self._all_ended())

    def remember_texts(self) -> None:
        """Keep the whole text from now on, for a tokenizer to count."""
        self.texts = [[] for _ in range(self._request.choices)]

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of the stream, cut anywhere, and return the bytes for a streaming caller, often none."""
        try:
            return self._take_all(self._events.feed(chunk))
        except EventTooLong:
            self.failure = UpstreamUnavailable("The upstream sent an event without an end.")
            return b""

    def close(self) -> bytes:
        """Note the end of the bytes; an answer is whole without its last event if every choice has ended."""
        shown = b"" if self.failure else self._take_all(self._events.close())
        if not self.failure and not self.is_over():
            shown += self._give_up_halves()
        if self._all_ended() and not self._was_cut:
            self.ended_by_itself = True
        return shown

    @abstractmethod
    def feed_whole(self, answer: Any) -> bytes:
        """Take an answer that came whole, not as a stream; cut its text in proportion if it exceeds the grant."""

    def failed(self, error: TokencapError) -> bytes:
        """Return the last bytes of a failed stream, where its dialect reports a failure within the answer."""
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
        """Note the upstream's sign that nothing more comes; return the bytes for a streaming caller."""
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
        """Take events from ``start`` on that differ from an earlier event only in their text.

        Returns:
            The number of events taken, and the bytes for a streaming caller.
        """
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
        """Take U+FFFD for each held half of a character that cannot be completed after ``end``; None ends all texts."""
        replaced = self._halves.replaced(end) if self._halves.held else ()
        return b"".join([self._take(event) for event in replaced])

    def _take_parsed(self, data: bytes, event: dict[str, Any]) -> bytes:
        """Take a parsed event; a dialect with a fast path overrides this to recognise similar events later."""
        return self._take(event)

    def _is_over_grant(self, reported: int | None) -> bool:
        """Return whether a running figure shows that the text in the same event exceeds the grant."""
        return (reported or 0) > self._granted

    def _note_usage(self, reported: dict[str, Any], usage: Usage) -> None:
        """Take the upstream's usage, except its output once a choice was cut: nobody receives some of those tokens."""
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
        """Note new text: an earlier usage does not count it."""
        if not self._all_ended():
            self._is_final = False

    def _counts(self, index: int, *, crosses: bool = False) -> bool:
        """Count a token of a choice, or cut the choice if its grant is used up or the new text ``crosses`` it."""
        if crosses or self._tokens[index] == self._grant:
            self._was_cut, self._is_final = True, False
            self._ended[index] = "length"
            return False
        self._tokens[index] += 1
        return True

    def _wrote(self, index: int, written: Any) -> None:
        """Note the new texts in a piece of a choice: their length, and where texts are kept also the texts."""
        self._wrote_texts(index, [written] if isinstance(written, str) else list(strings_in(written)))

    def _wrote_texts(self, index: int, texts: list[str]) -> None:
        self._characters += sum(map(len, texts))
        self._keep(index, texts)

    def _keep(self, index: int, texts: Iterable[str]) -> None:
        """Keep a choice's text, where texts are kept."""
        if self.texts is not None:
            self.texts[index] += texts

    def _remember(self, index: int, text: Any) -> None:
        """Keep enough of the end of a choice's text to recognise the text, whatever its length."""
        if isinstance(text, str):
            self._tails[index] = (self._tails[index] + text)[-TAIL_KEPT:]

    def _made(self, parts: list[Any]) -> int:
        """Return the tokens of an answer that came whole: the upstream's figure, unless it is too small for the texts.

        Without a usable figure the tokens are estimated, and a choice that its limit ended counts as having used up its
        grant.
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
        """Return the granted part of a text in an answer that has ``made`` tokens."""
        return text[: len(text) * self._granted // made]


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = loads(data)
    except ValueError as error:
        raise UpstreamUnavailable("The upstream sent an event that is not JSON.") from error
    if not isinstance(event, dict):
        raise UpstreamUnavailable("The upstream failed in the middle of its answer.")
    if is_error(event):
        raise UpstreamErrorEvent(event)
    return event


def _named_error(data: bytes) -> dict[str, Any]:
    """Return the content of an event named as an error: JSON of any kind, or plain text."""
    try:
        content = loads(data)
    except ValueError:
        content = data.decode("utf-8", "replace").strip()
    return content if isinstance(content, dict) and is_error(content) else {"error": content}


def strings_in(written: Any) -> Iterator[str]:
    """Yield the texts in a piece of an answer, at any depth and in any dialect."""
    if isinstance(written, str):
        yield written
    elif isinstance(written, dict):
        for name, value in written.items():
            if name not in NO_TEXT:
                yield from strings_in(value)
    elif isinstance(written, list):
        for value in written:
            yield from strings_in(value)
