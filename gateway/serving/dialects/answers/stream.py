"""One answer as it comes in, whatever its wire format: counted, cut at the grant, and known to be over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from gateway.errors import TokencapError, UpstreamError, UpstreamSaid, UpstreamUnavailable
from gateway.serving.dialects.answers.surrogates import HALF, Halves
from gateway.serving.dialects.answers.thread_digests import TAIL_CHARACTERS
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.fields.answer_fields import shown_usage
from gateway.serving.json_codec import loads
from gateway.serving.meter import UNSAID, Sight, Usage
from gateway.serving.sse import Events, EventTooLong, NamedError, comment, is_comment
from gateway.serving.upstream.error_bodies import is_error

NO_TEXT = frozenset({"id", "type", "role", "call_id", "status", "index", "format", "signature"})
"""Strings that the model did not write, or not as text."""

TAIL_KEPT = 2 * TAIL_CHARACTERS
"""Characters of the end of a choice's text that are kept, whatever its length."""

TOKEN_CHARACTERS = 4
"""Characters of text to a token, where nobody counted."""

PIECE_CHARACTERS = 6
"""Characters of a piece that may well be one token, on average: where pieces have more, they are of several tokens."""

TOKEN_CHARACTERS_MOST = 8
"""Characters to a token that no text has more of, on average, where it comes in pieces of about a token; twice that where
it comes whole, and may be anything."""


class Reading(ABC):
    """Bytes of an upstream's stream in, bytes for the caller out, and a sight of it for the meter.

    What a format adds: ``_take`` for one event, ``feed_whole`` for an answer that was not streamed, and the two ways
    an answer ends, ``ending`` for a stream and ``whole`` for a caller who did not ask for one. An event that carries
    text for a choice is one token of it, unless the upstream's figure says more.
    """

    def __init__(self, wanted: Parameters, grant: int) -> None:
        self.tool_calls: list[str] = []
        """Ids of the tool calls in the answer."""
        self.answer_id: str | None = None
        """The answer's own id, where a later call may name it."""
        self.ended_by_itself = False
        """Whether the upstream brought the answer to its end."""
        self.failure: UpstreamError | None = None
        """What was wrong with the last bytes; what came before it was passed on."""
        self.texts: list[list[str]] | None = None
        """All that each choice wrote, where it is to be remembered: ``remember_texts``."""
        self.input_tokens: int | None = None
        """The input as it was counted here, where the upstream's figure is none."""
        self._wanted = wanted
        self._grant = grant
        self.is_silent = True
        """Whether not one event came."""
        self._events = Events()
        self._halves = Halves()
        self._tokens = [0] * wanted.choices
        self._characters = 0
        self._ended: dict[int, str] = {}
        self._tails = [""] * wanted.choices
        self._was_cut = False
        self._estimate: int | None = None
        self._whole_least = 0  # tokens that an answer that came whole has at least
        self._most_of_one = 0  # tokens that a choice of an answer that came whole may have
        self._is_partial = False  # whether the usage leaves out choices that have said none yet
        self._usage = UNSAID
        self._is_final = False
        self._figures = 0  # that were said of output while more was to come
        self._said: dict[str, Any] = {}  # the upstream's last usage, whole

    @property
    def usage(self) -> Usage:
        """What the upstream said that it used."""
        return self._usage

    @property
    def sight(self) -> Sight:
        """What went by so far, and what the upstream said of it."""
        pieces, granted = sum(self._tokens), self._granted
        is_whole = self.ended_by_itself or (self._all_ended and not self._was_cut)
        if not pieces:
            tokens = min(self._estimate or 0, granted)
            is_estimate = self._estimate is not None
            return Sight(self._usage, tokens, self._is_final, is_whole, is_estimate, least=self._whole_least)
        more = max(self._characters - PIECE_CHARACTERS * pieces, 0) // TOKEN_CHARACTERS
        return Sight(
            self._usage,
            min(max(pieces + more, self._usage.output_tokens or 0 if self._is_partial else 0), granted),
            self._is_final,
            is_whole,
            is_estimate=more > 0,
            least=min(pieces, self._by_length),
            surely=min(max(pieces, self._by_length), granted),
            is_partial=self._is_partial,
        )

    @property
    def _by_length(self) -> int:
        """Tokens that so long a text has at the least, if it is no drawing."""
        return self._characters // TOKEN_CHARACTERS_MOST

    @property
    def has_begun(self) -> bool:
        """Whether a token of the answer was seen to come; one that comes whole shows none."""
        return any(self._tokens)

    @property
    def tails(self) -> list[str]:
        """The ends of the texts of its choices."""
        return [tail for tail in self._tails if tail]

    @property
    def item_ids(self) -> list[str]:
        """Ids of parts of the answer that a later call may name in their place."""
        return []

    @property
    def reasons(self) -> list[str]:
        """How each choice that has ended did, in the words of a chat completion."""
        return list(self._ended.values())

    @property
    def uses_whole_grant(self) -> bool:
        """Whether a choice has had all that it was granted.

        What the usage says beyond what was seen went to those that their limit ended; where nothing was seen, a part to
        each.
        """
        reported, had = self._usage.output_tokens or 0, sum(self._tokens)
        seen = max((self._tokens[index] for index, reason in self._ended.items() if reason == "length"), default=0)
        most = seen + max(reported - had, 0) if had else -(-reported // self._wanted.choices)
        return self._was_cut or max(most, self._most_of_one) >= self._grant

    @property
    def is_over(self) -> bool:
        """Whether nothing that may still come is wanted."""
        return self.ended_by_itself or (self._was_cut and self._all_ended)

    def is_told(self, as_it_goes: bool) -> bool:
        """Return whether the upstream's figure of all that was made so far is known.

        One that is said in the middle is that only where the upstream is known to tell ``as_it_goes``, or has done so.
        """
        said = self._usage.output_tokens
        if said is None or self._is_partial or said < max(sum(self._tokens), self._by_length):
            return False
        return as_it_goes or self._figures > 1 or (self._is_final and self._all_ended)

    def remember_texts(self) -> None:
        """Keep all of the text, for a tokenizer to count."""
        self.texts = [[] for _ in range(self._wanted.choices)]

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of the stream, cut anywhere, and return those for a streaming caller, often none."""
        try:
            return self._take_all(self._events.feed(chunk))
        except EventTooLong:
            self.failure = UpstreamUnavailable("The upstream sent an event without an end.")
            return b""

    def close(self) -> bytes:
        """Take note that no more bytes come: an answer whose every choice has ended is whole without its last event."""
        shown = b"" if self.failure else self._take_all(self._events.close())
        if not self.failure and not self.is_over:
            shown += self._give_up_halves()
        if self._all_ended and not self._was_cut:
            self.ended_by_itself = True
        return shown

    @abstractmethod
    def feed_whole(self, answer: Any) -> bytes:
        """Take an answer that came whole, not as a stream; where it is over the grant, its text is cut in proportion."""

    def failed(self, error: TokencapError) -> bytes:
        """Return the last bytes of a stream that failed, where its format says so within the answer."""
        return b""

    @abstractmethod
    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        """Return the last bytes of a stream."""

    @abstractmethod
    def whole(self, billed: int) -> Any:
        """Return the answer for a caller who does not stream."""

    @abstractmethod
    def _take(self, event: dict[str, Any]) -> bytes:
        """Take the JSON of one event and return the bytes for a streaming caller."""

    def _done(self) -> bytes:
        """Take note that the upstream says that nothing more comes; return what a streaming caller hears of it."""
        return b""

    @property
    def _granted(self) -> int:
        return self._grant * self._wanted.choices

    @property
    def _all_ended(self) -> bool:
        return len(self._ended) == self._wanted.choices

    def _take_all(self, events: list[bytes]) -> bytes:
        shown: list[bytes] = []
        place = 0
        if events:
            self.is_silent = False
        try:
            while place < len(events) and not self.is_over:
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
        """Take events from ``start`` on that differ from one before them in their text only; return how many."""
        return 0, b""

    def _take_one(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            shown = self._give_up_halves() + self._done()
            self.ended_by_itself = not self._was_cut
            return shown
        if isinstance(data, NamedError):
            raise UpstreamSaid(_named_error(data))
        if is_comment(data):  # a sign of life for who waits for a stream
            return comment(data[1:].removeprefix(b" ")) if self._wanted.stream else b""
        event = _event(data)
        if not self._halves.held and not HALF.search(data):
            return self._take_anew(data, event)
        event = self._halves.joined(event)
        shown = self._give_up_halves(event)
        return shown if self.is_over else shown + self._take_anew(data, event)

    def _give_up_halves(self, end: dict[str, Any] | None = None) -> bytes:
        """Take as text of its own each half of a character that no other half can follow after ``end``, or at all."""
        given_up = self._halves.given_up(end) if self._halves.held else ()
        return b"".join([self._take(event) for event in given_up])

    def _take_anew(self, data: bytes, event: dict[str, Any]) -> bytes:
        """Take an event that was read; a format that knows its like again takes note of it here."""
        return self._take(event)

    def _is_over_grant(self, reported: int | None) -> bool:
        """Return whether a running figure says that the text beside it is beyond the grant."""
        return (reported or 0) > self._granted

    def _note_usage(self, said: dict[str, Any], usage: Usage) -> None:
        """Take what the upstream says; once a choice was cut, its figures count what nobody gets."""
        self._said = shown_usage(said)
        if self._was_cut:
            usage = replace(usage, output_tokens=self._usage.output_tokens)
        self._usage, self._is_final = usage, not self._was_cut
        if usage.output_tokens and not self._all_ended:
            self._figures += 1

    @property
    def _input(self) -> int:
        """Input tokens as a caller is shown them."""
        for tokens in (self.input_tokens, self._usage.input_tokens):
            if tokens is not None:
                return tokens
        return self._wanted.input_estimate

    def _note_text(self) -> None:
        """Take note of text: what the usage says, it said of the text so far."""
        if not self._all_ended:
            self._is_final = False

    def _counts(self, index: int, *, crosses: bool = False) -> bool:
        """Count a token of a choice; or cut the choice, where it has had its grant or this text ``crosses`` it."""
        if crosses or self._tokens[index] == self._grant:
            self._was_cut, self._is_final = True, False
            self._ended[index] = "length"
            return False
        self._tokens[index] += 1
        return True

    def _wrote(self, index: int, written: Any) -> None:
        """Take note of the texts that are new in a piece of a choice: how long they are, and the texts if that is wanted."""
        texts = [written] if isinstance(written, str) else list(strings_in(written))
        self._characters += sum(map(len, texts))
        self._keep(index, texts)

    def _keep(self, index: int, texts: Iterable[str]) -> None:
        """Remember what a choice wrote, if that is wanted."""
        if self.texts is not None:
            self.texts[index] += texts

    def _remember(self, index: int, text: Any) -> None:
        """Keep the end of a choice's text: enough to know it again, whatever its length."""
        if isinstance(text, str):
            self._tails[index] = (self._tails[index] + text)[-TAIL_KEPT:]

    def _made(self, parts: list[Any]) -> int:
        """Return the tokens of an answer that came whole: as the upstream says, unless its texts belie that.

        Where nobody counted they are guessed, and a limit that they met was the grant.
        """
        self._whole_least = sum(map(len, strings_in(parts))) // (2 * TOKEN_CHARACTERS_MOST)
        said = self._usage.output_tokens
        if said and said >= self._whole_least:
            return said
        self._most_of_one = self._grant
        size = sum(len(part if isinstance(part, str) else str(part)) for part in parts)
        self._estimate = -(-size // TOKEN_CHARACTERS)
        return self._estimate

    def _part(self, text: str, made: int) -> str:
        """Return the part of a text of an answer of ``made`` tokens that was granted."""
        return text[: len(text) * self._granted // made]


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = loads(data)
    except ValueError as error:
        raise UpstreamUnavailable("The upstream sent what is not JSON.") from error
    if not isinstance(event, dict):
        raise UpstreamUnavailable("The upstream failed in the middle of its answer.")
    if is_error(event):
        raise UpstreamSaid(event)
    return event


def _named_error(data: bytes) -> dict[str, Any]:
    """Return what an event says that is an error by its name: JSON of any shape, or words."""
    try:
        said = loads(data)
    except ValueError:
        said = data.decode("utf-8", "replace").strip()
    return said if isinstance(said, dict) and is_error(said) else {"error": said}


def strings_in(written: Any) -> Iterator[str]:
    """Yield the texts in a piece of an answer, wherever its format has them."""
    if isinstance(written, str):
        yield written
    elif isinstance(written, dict):
        for name, value in written.items():
            if name not in NO_TEXT:
                yield from strings_in(value)
    elif isinstance(written, list):
        for value in written:
            yield from strings_in(value)
