"""Finds a call's conversation, by the ids and answers in the request, and the input that the upstream reads again."""

from __future__ import annotations

import re

from gateway.errors import BadRequest
from gateway.holds.store.threads import Threads
from gateway.serving.caller.api_key import Key
from gateway.serving.dialects.answers.thread_digests import of_answer_id, of_item, threads
from gateway.serving.dialects.parameters import Parameters

CONVERSATION = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class ConversationFinder:
    """Finds conversations of customers."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    async def conversation(
        self, conversation_id: str | None, session: str | None, key: Key, request: Parameters
    ) -> str | None:
        """Return the conversation that a call's headers or body name or continue; None for a new conversation."""
        param = "X-Conversation-Id"
        if conversation_id is None:
            conversation_id, param = session or request.conversation, "conversation"
        if conversation_id is not None and not CONVERSATION.fullmatch(conversation_id):
            raise BadRequest("A conversation id is 1 to 128 of A-Za-z0-9._:-", param=param)
        referenced = await self._conversation_of_items(key, request) if request.references else None
        if request.previous is not None:
            continued = await self._led_to(key, (of_answer_id(request.previous, key.secret),))
            if continued is None:  # an unknown answer may be another customer's
                raise BadRequest(
                    f"There is no answer {request.previous[:64]!r} to go on from.",
                    code="previous_response_not_found",
                    param="previous_response_id",
                )
            return conversation_id or continued or None
        if conversation_id is not None:
            return conversation_id
        if referenced:
            return referenced
        answers = [request.resent_answer] if request.resent_answer else []
        return (
            await self._led_to(key, threads(request.tool_results, answers, key.secret, request.resent_history)) or None
        )

    async def _conversation_of_items(self, key: Key, request: Parameters) -> str:
        """Return the conversation of the items that a body refers to, or ``""`` for items of several conversations.

        Raises:
            BadRequest: an item is in no answer to this customer that is still known.
        """
        digests = [of_item(reference, key.secret) for reference in request.references]
        names = await self._threads.conversation_of_each(key.bucket, key.digest, digests)
        for item, name in zip(request.references, names, strict=True):
            if name is None:
                raise BadRequest(f"There is no item {item[:64]!r} to refer to.", code="item_not_found", param="input")
        known = {name for name in names if name}
        return known.pop() if len(known) == 1 else ""

    async def _led_to(self, key: Key, digests: tuple[str, ...]) -> str | None:
        return await self._threads.conversation(key.bucket, key.digest, digests)

    async def input_of(
        self, request: Parameters, key: Key, conversation: str | None, *, kept_most: int, model_most: int | None
    ) -> tuple[int, int]:
        """Return the most input tokens of a call, and the estimate that is billed where its input is not counted.

        The part of a conversation that the upstream keeps counts as all tokens of the conversation's calls, where they
        are known, and at most as ``kept_most``. No model reads more than its length, ``model_most``.
        """
        bound, estimate = request.input_bound, request.input_estimate
        if request.refers:
            tokens_so_far = None
            if conversation is not None:
                tokens_so_far = await self._threads.tokens_so_far(key.bucket, key.digest, conversation)
            kept_tokens = kept_most
            if tokens_so_far is not None:
                kept_tokens = min(tokens_so_far, kept_tokens)
                estimate += kept_tokens
            bound += kept_tokens
        most = model_most or bound
        return min(bound, most), min(estimate, most)
