"""One admitted call while it runs: its progress, its outcome, and the last bytes for its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from gateway.errors import TokencapError
from gateway.holds.hold import UNANSWERED, Outcome, Settled
from gateway.holds.keeper import Live
from gateway.serving.caller.api_key import Key
from gateway.serving.caller.headers import OF_STREAMS, Headers, answer_headers, charge_header
from gateway.serving.dialects.answers import thread_digests
from gateway.serving.dialects.answers.stream import Reading
from gateway.serving.dialects.answers.whole_answer import with_original_bytes
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.dialects.requests.prompt import Prompt
from gateway.serving.disconnects import Disconnects
from gateway.serving.json_codec import dumps
from gateway.serving.meter import Count, count_input, count_output, finish_of, outcome, reported_input
from gateway.serving.tokenizer import SpotChecks, TokenCounter

EVENT_STREAM = b"text/event-stream; charset=utf-8"
JSON = b"application/json"

ITEMS_MOST = 64
"""The most items of an answer that a later call may refer to."""

BY_OBSERVATION = frozenset({"counted", "estimate"})
"""Sources of counts that a tokenizer's count replaces."""

OF_TEXT = frozenset({*BY_OBSERVATION, "tokenizer"})
"""Sources of counts that cover only the relayed text, which may be less than the generated text."""


UNREAD = "\ufffd"
"""The character in place of bytes that are not a character; how many tokens such bytes were is unknown."""

NOTHING = Count(0, 0, "counted")

ANSWERED = frozenset({"complete", "tool_calls", "cap", "caller_limit", "context", "filtered", "period"})
"""Endings of an answer that its caller received whole, up to the grant."""

OWES_INPUT = ANSWERED | {"disconnect"}
"""Endings of an answer whose input is owed, even without a token of output: the model has read the input."""


class Call:
    """The state of a call between its admission and its settlement."""

    reading: Reading | None = None
    raw: bytes | None = None
    """The answer's bytes as they came, where the answer came whole."""
    prompt: Prompt | None = None
    """The prompt's text, where there is a tokenizer to count it."""
    is_kept = False
    """Whether the answer is kept for a repeated request."""
    final_outcome = UNANSWERED
    is_checked = False
    """Whether a tokenizer counts the output again, to check the upstream's count."""
    has_left = False
    """Whether the caller has left."""
    _recounted: int | None = None
    _input_recounted: int | None = None
    _sent_at: float | None = None
    _left_at: float | None = None
    _is_drained = False
    _has_place = False  # whether it has one of ``Places``
    _ttft_ms: int | None = None

    def __init__(
        self, live: Live, request: Parameters, key: Key, disconnects: Disconnects, monotonic: Callable[[], float]
    ) -> None:
        self.live = live
        self.request = request
        self.content_type = EVENT_STREAM if request.stream else JSON
        self._key = key
        self._disconnects = disconnects
        self._monotonic = monotonic
        self._started = monotonic()

    @property
    def headers(self) -> Headers:
        """The headers of the answer, whole or streamed."""
        return [*answer_headers(self.live.hold, self.request.dropped), *(OF_STREAMS if self.request.stream else ())]

    def begin(self, reading: Reading) -> Reading:
        """Note that the upstream has begun to answer."""
        self.reading = reading
        self.live.counting = self._count
        if self.has_left:
            self._note_owed_input()
        return reading

    def note_sent(self) -> None:
        """Note that the request goes to the upstream, which may generate tokens from now on."""
        self._sent_at = self._monotonic()

    def note_disconnect(self) -> float:
        """Note that the caller has left; return for how many seconds its answer is read on, 0 if it is not read on."""
        self.has_left, self._left_at = True, self._monotonic()
        self.live.counting = self._count
        if self.reading is not None:
            self._note_owed_input()
        self._is_drained = self._sent_at is not None and not self._is_usage_known
        seconds = self._disconnects.read_on_s(is_awaited=self._is_drained)
        self._has_place = seconds > 0
        return seconds

    def end(self) -> None:
        """Note that the answer is not read any further."""
        if self._has_place:
            self._has_place = False
            self._disconnects.ends()

    def _note_owed_input(self) -> None:
        """Note in the live hold that the input is owed: the upstream answers, and the caller has left."""
        self.live.owes_input = self.request.generates

    @property
    def _is_usage_known(self) -> bool:
        """Whether the upstream's figure for the tokens generated so far is known."""
        return self.reading is not None and self.reading.is_usage_known(self._disconnects.has_continuous_usage)

    def _count(self) -> int:
        if self.reading is None:
            return self._owed_before_its_head.billed_output_tokens
        counted = count_output(self.reading.observed, self.live.hold.tokens)
        if self.has_left and counted.source in OF_TEXT:
            counted = self._owed(counted)
        return counted.billed_output_tokens

    def _owed(self, observed: Count) -> Count:
        """Return the count that is owed for an answer whose caller left, where only ``observed`` is known."""
        assert self._sent_at is not None
        return self._disconnects.owed(observed, self.live.hold, self._monotonic() - self._sent_at)

    def note_progress(self) -> None:
        """Note the time to the first token, once it has come."""
        if self._ttft_ms is None and self.reading is not None and self.reading.has_begun:
            self._ttft_ms = self._elapsed_ms()

    async def count_missing(self, token_counter: TokenCounter) -> None:
        """Have a tokenizer count the relayed text and the prompt, where the upstream reported no usable figure."""
        if self.reading is not None:
            await asyncio.gather(self._recount_output(self.reading, token_counter), self._recount_input(token_counter))

    async def _recount_output(self, reading: Reading, token_counter: TokenCounter) -> None:
        if reading.texts is not None and count_output(reading.observed, self.live.hold.tokens).source in BY_OBSERVATION:
            self._recounted = await token_counter.count(
                ["".join(pieces).replace(UNREAD, "") for pieces in reading.texts]
            )

    async def _recount_input(self, token_counter: TokenCounter) -> None:
        if self.prompt is None or self._reported_input():
            return
        counted = await token_counter.count([self.prompt.text])
        self._input_recounted = None if counted is None else counted + self.prompt.tokens

    def check(self, spots: SpotChecks) -> None:
        """Have the upstream's figure compared with a tokenizer's, where all text that the upstream counted was relayed.

        An answer with reasoning is left out, because the relayed text lacks reasoning that was not shown.
        """
        reading, result = self.reading, self.final_outcome
        if reading is None or reading.texts is None or result.usage_source != "upstream":
            return
        if result.reasoning_tokens == 0 and result.output_tokens == result.billed_output_tokens:
            spots.compare(result.output_tokens, reading.texts)

    def _reported_input(self) -> int | None:
        assert self.reading is not None
        return reported_input(self.reading.usage.input_tokens)

    def finish(self) -> str:
        """Return the ``finish`` of an answer that came to its end or used up its grant."""
        assert self.reading is not None
        reasons = self.reading.reasons
        uses_whole_grant = "length" in reasons and self.reading.uses_whole_grant
        return finish_of(reasons, uses_whole_grant=uses_whole_grant, bound_by=self.live.hold.bound_by)

    def outcome(self, finish: str, problem: TokencapError | None) -> Outcome:
        """Return the outcome of the call.

        The tokens of a failed answer that is not streamed are counted, not billed: its caller was sent none of them.
        """
        if self.reading is None:
            return self._owed_unanswered() if finish == "disconnect" and problem is None else UNANSWERED
        hold, reading = self.live.hold, self.reading
        observed = reading.observed
        observed.recounted = self._recounted
        estimate, bound = hold.facts.input_estimate, hold.facts.input_bound
        input_count = count_input(self._reported_input(), self._input_recounted, estimate=estimate, bound=bound)
        if input_count.source != "upstream":
            reading.input_tokens = input_count.tokens
        result = outcome(
            observed,
            input_count,
            granted=hold.tokens,
            finish=finish,
            ttft_ms=self._ttft_ms,
            duration_ms=self._elapsed_ms(),
            threads=self._thread_digests(reading, finish),
        )
        if problem is not None and not self.request.stream:
            result = replace(result, billed_output_tokens=0)
        elif self.has_left:
            self._complete_after_disconnect(result, failed=problem is not None)
        elif result.usage_source == "upstream" and self._sent_at is not None:
            self._disconnects.pace.note(result.output_tokens / hold.facts.choices, self._monotonic() - self._sent_at)
        result.owes_input = finish in OWES_INPUT and (self.request.generates or finish == "complete")
        self.final_outcome = result
        return result

    def _complete_after_disconnect(self, result: Outcome, *, failed: bool) -> None:
        """Complete the outcome of an answer whose caller left: its time, its count and bill, and the source of the count.

        An answer that the upstream finished, or ``failed`` to finish, is counted as if its caller had listened.
        """
        assert self._left_at is not None
        assert self.reading is not None
        result.duration_ms = round((self._left_at - self._started) * 1000)
        if result.usage_source == "upstream" and self._is_drained:
            result.usage_source = "drained"
        elif result.usage_source in OF_TEXT and not (failed or self.reading.observed.is_whole):
            owed = self._owed(Count(result.output_tokens, result.billed_output_tokens, result.usage_source))
            result.output_tokens = result.billed_output_tokens = owed.billed_output_tokens
            result.usage_source = owed.source

    @property
    def _owed_before_its_head(self) -> Count:
        """The count that is owed if the caller leaves before the upstream has begun to answer."""
        if self._sent_at is None or not self._disconnects.owes_unanswered(comes_whole=self.request.comes_whole):
            return NOTHING
        return self._owed(NOTHING)

    def _owed_unanswered(self) -> Outcome:
        """Return the outcome of a call whose caller left before the upstream's head."""
        facts, owed = self.live.hold.facts, self._owed_before_its_head
        if owed.billed_output_tokens == 0:
            return UNANSWERED
        assert self._left_at is not None
        input_count = count_input(None, None, estimate=facts.input_estimate, bound=facts.input_bound)
        return Outcome(
            was_answered=True,
            finish="disconnect",
            output_tokens=owed.output_tokens,
            billed_output_tokens=owed.billed_output_tokens,
            input_tokens=input_count.tokens,
            input_source=input_count.source,
            usage_source=owed.source,
            duration_ms=round((self._left_at - self._started) * 1000),
        )

    def _thread_digests(self, reading: Reading, finish: str) -> tuple[str, ...]:
        """Return the digests of the parts of this answer that a later call may send back."""
        tails = reading.tails if finish == "cap" else []
        if not (reading.tool_calls or tails or reading.answer_id):
            return ()
        secret = self._key.secret
        digests = thread_digests.threads(reading.tool_calls, tails, secret, self.request.history)
        digests += tuple(
            thread_digests.of_item(item_id, secret) for item_id in dict.fromkeys(reading.item_ids[:ITEMS_MOST])
        )
        return (
            digests if reading.answer_id is None else (*digests, thread_digests.of_answer_id(reading.answer_id, secret))
        )

    def last(self, settled: Settled | None) -> tuple[Headers, bytes]:
        """Return the headers and bytes that end the answer, with the charge where it is known in time.

        A caller that does not stream gets the whole answer and its headers; a streaming caller gets the last events.
        """
        assert self.reading is not None
        if self.is_kept and settled is not None:
            settled = self.foreseen(settled.charge_nanousd)
        if self.request.stream:
            charge = settled.charge_nanousd if settled else None
            conversation_left = settled.conversation_left if settled else None
            return [], self.reading.ending(self.final_outcome.billed_output_tokens, charge, conversation_left)
        headers = [*self.headers, *charge_header(settled)]
        answer = self.reading.whole(self.final_outcome.billed_output_tokens)
        return headers, dumps(answer) if self.raw is None else with_original_bytes(self.raw, answer)

    def foreseen(self, charge_nanousd: int) -> Settled:
        """Return the settlement in the case that the call is charged this amount."""
        hold = self.live.hold
        return Settled(charge_nanousd, hold.conversation_left + hold.tokens - self.final_outcome.billed_output_tokens)

    def _elapsed_ms(self) -> int:
        return round((self._monotonic() - self._started) * 1000)
