"""The conversations that are still open according to the book, for a rebuild of a lost Redis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from gateway.ledger.database import Database
from gateway.ledger.read.queries import Span, rows_in
from gateway.ledger.rows import AnyRow
from gateway.ledger.tables import usage_records
from pricing.money import MOST

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SWEEP_EVERY = 10_000

book = usage_records.c
COLUMNS = (
    *(book.time, book.id, book.settled, book.customer, book.conversation, book.tier, book.menu_version),
    *(book.billed_output_tokens, book.input_tokens, book.conversation_cap_tokens, book.seq),
)


@dataclass(frozen=True, slots=True)
class ConversationCall:
    """The fields of a call that a conversation's state is computed from."""

    customer: str
    conversation: str
    time: int
    settled: int
    tier: str | None
    menu_version: str | None
    tokens: int
    input_tokens: int
    cap: int | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation so far. ``first`` is its first call's admission, ``last`` the latest sign of life, ms."""

    customer: str
    name: str
    tier: str | None
    menu_version: str | None
    tokens: int
    input_tokens: int
    was_charged: bool
    """Whether a record has output tokens: the first such record is charged the price."""
    first: int
    last: int
    cap: int | None = None
    """The conversation's cap according to its records; older records do not state a cap."""

    def is_open(self, now_ms: int) -> bool:
        """Return whether it is open: it ends an hour after its last sign of life, or a day after its first call."""
        return now_ms - self.first < DAY_MS and now_ms - self.last < HOUR_MS


def open_conversations(database: Database, now_ms: int, upto: int | None = None) -> list[Conversation]:
    """Return every conversation that is open at ``now_ms``, from the records of the last 24 hours.

    ``upto`` leaves out records that were booked after the record with this number.
    """
    rows = rows_in(database, COLUMNS, Span(since=now_ms - DAY_MS))
    calls = (said_in(row) for row in rows if row.conversation is not None and (upto is None or row.seq <= upto))
    return [conversation for conversation in gathered(calls) if conversation.is_open(now_ms)]


def said_in(row: AnyRow) -> ConversationCall:
    """Return the call in the row of a record, which was selected by ``COLUMNS``."""
    return ConversationCall(
        customer=row.customer,
        conversation=row.conversation,
        time=row.time,
        settled=row.settled,
        tier=row.tier,
        menu_version=row.menu_version,
        tokens=row.billed_output_tokens,
        input_tokens=row.input_tokens,
        cap=row.conversation_cap_tokens,
    )


def gathered(calls: Iterable[ConversationCall]) -> Iterator[Conversation]:
    """Yield the conversations of calls that come in the order of their admission.

    A name that is used again after its conversation ended is a new conversation. Ended conversations are removed from
    memory every ``SWEEP_EVERY`` calls.
    """
    going: dict[tuple[str, str], Conversation] = {}
    for count, call in enumerate(calls, start=1):
        key = call.customer, call.conversation
        before = going.get(key)
        if before is not None and not before.is_open(call.time):
            yield going.pop(key)
            before = None
        going[key] = begun_by(call) if before is None else continued_by(before, call)
        if count % SWEEP_EVERY == 0:
            ended = [key for key, conversation in going.items() if not conversation.is_open(call.time)]
            yield from map(going.pop, ended)
    yield from going.values()


def begun_by(call: ConversationCall) -> Conversation:
    """Return the conversation that a call begins."""
    return Conversation(
        customer=call.customer,
        name=call.conversation,
        tier=call.tier,
        menu_version=call.menu_version,
        tokens=call.tokens,
        input_tokens=call.input_tokens,
        was_charged=call.tokens > 0,
        first=call.time,
        last=max(call.time, call.settled),
        cap=call.cap,
    )


def continued_by(conversation: Conversation, call: ConversationCall) -> Conversation:
    """Return a conversation with a further call. No sum exceeds ``MOST``."""
    return replace(
        conversation,
        tokens=min(MOST, conversation.tokens + call.tokens),
        input_tokens=min(MOST, conversation.input_tokens + call.input_tokens),
        was_charged=conversation.was_charged or call.tokens > 0,
        last=max(conversation.last, call.time, call.settled),
        cap=conversation.cap if call.cap is None else call.cap,
    )
