"""Reads one chat completion as it streams in: counts it, cuts each choice at the grant, writes what the caller sees."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from gateway.errors import UpstreamUnavailable
from gateway.serving.dialects.assembly import merge
from gateway.serving.dialects.dialect import Wanted
from gateway.serving.meter import UNSAID, Sight, Usage, count
from gateway.serving.sse import DONE, event
from gateway.serving.threads import TAIL_CHARACTERS

TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
CALLS = ("tool_calls", "function_call", "audio")

TOKEN_CHARACTERS = 4
"""Characters of text to a token, where nobody counted."""


class ChatReading:
    """One answer. A chunk that carries text for a choice is one token of it, unless the upstream's figure says more."""

    def __init__(self, wanted: Wanted, grant: int) -> None:
        self.tool_calls: list[str] = []
        self.ended_by_itself = False
        self._wanted = wanted
        self._grant = grant
        self._tokens = [0] * wanted.choices
        self._ended: dict[int, str] = {}
        self._tails = [""] * wanted.choices
        self._was_cut = False
        self._estimate: int | None = None
        self._usage = UNSAID
        self._is_final = False
        self._said: dict[str, Any] = {}  # the upstream's last usage, whole
        self._frame: dict[str, Any] = {}  # what every chunk repeats: id, created, …
        self._choices: dict[int, dict[str, Any]] = {}  # put together for a caller who does not stream

    @property
    def sight(self) -> Sight:
        counted = self._estimate or sum(self._tokens)
        tokens = min(counted, self._granted)
        is_whole = self.ended_by_itself or (len(self._ended) == self._wanted.choices and not self._was_cut)
        return Sight(self._usage, tokens, self._is_final, is_whole, self._estimate is not None)

    @property
    def _granted(self) -> int:
        return self._grant * self._wanted.choices

    @property
    def tails(self) -> list[str]:
        return [tail for tail in self._tails if tail]

    @property
    def reasons(self) -> list[str]:
        return list(self._ended.values())

    @property
    def uses_whole_grant(self) -> bool:
        reported = self._usage.output_tokens if self._wanted.choices == 1 else None
        return self._was_cut or max(*self._tokens, reported or 0, 0) >= self._grant

    @property
    def is_over(self) -> bool:
        return self.ended_by_itself or (self._was_cut and len(self._ended) == self._wanted.choices)

    def feed(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            self.ended_by_itself = not self._was_cut
            return b""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UpstreamUnavailable("The upstream sent what is not JSON.") from error
        if not isinstance(chunk, dict) or chunk.get("error"):
            raise UpstreamUnavailable("The upstream failed in the middle of its answer.")
        chunk["model"] = self._wanted.model
        usage, choices = chunk.pop("usage", None), chunk.get("choices")
        choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        has_text = any(carries_token(_delta(choice)) for choice in choices)
        crosses = has_text and self._is_over_grant(usage)
        if not crosses:
            self._note_usage(usage)
        self._frame = {name: value for name, value in chunk.items() if name != "choices"}
        chunk["choices"] = [kept for choice in choices if (kept := self._take(choice, crosses=crosses)) is not None]
        if has_text and len(self._ended) < self._wanted.choices:
            self._is_final = False  # what the usage says, it said of the text so far
        if not chunk["choices"]:
            return b""
        if not self._wanted.stream:
            for choice in chunk["choices"]:
                self._put_together(choice)
            return b""
        if self._wanted.shows_usage:
            chunk["usage"] = None
        return event(_dumps(chunk))

    def close(self) -> None:
        """Take note that no more bytes come: an answer whose every choice has ended is whole without ``[DONE]`` too."""
        if len(self._ended) == self._wanted.choices and not self._was_cut:
            self.ended_by_itself = True

    def _is_over_grant(self, said: Any) -> bool:
        """Return whether a running figure says that the text beside it is beyond the grant."""
        return isinstance(said, dict) and (count(said.get("completion_tokens")) or 0) > self._granted

    def _note_usage(self, said: Any) -> None:
        """Take what the upstream says; once a choice was cut, its figures count what nobody gets."""
        if not isinstance(said, dict):
            return
        self._said = said
        prompt, completion = said.get("prompt_tokens_details"), said.get("completion_tokens_details")
        usage = Usage(
            output_tokens=count(said.get("completion_tokens")),
            input_tokens=count(said.get("prompt_tokens")),
            cached_tokens=count(prompt.get("cached_tokens") if isinstance(prompt, dict) else None) or 0,
            reasoning_tokens=count(completion.get("reasoning_tokens") if isinstance(completion, dict) else None) or 0,
        )
        if self._was_cut:
            usage = replace(usage, output_tokens=self._usage.output_tokens)
        self._usage, self._is_final = usage, not self._was_cut

    def _take(self, choice: dict[str, Any], *, crosses: bool) -> dict[str, Any] | None:
        """Count a choice's part of a chunk; return what of it the caller may see."""
        index = choice.get("index", 0)
        if type(index) is not int or index not in range(self._wanted.choices) or index in self._ended:
            return None
        delta = _delta(choice)
        if carries_token(delta):
            if crosses or self._tokens[index] == self._grant:
                self._was_cut, self._is_final = True, False
                self._ended[index] = "length"
                return {"index": index, "delta": {}, "logprobs": None, "finish_reason": "length"}
            self._tokens[index] += 1
            self._remember(index, delta)
            self.tool_calls += _new_calls(delta)
        if choice.get("finish_reason"):
            self._ended[index] = str(choice["finish_reason"])
        return {**choice, "index": index, "delta": delta}

    def _remember(self, index: int, message: dict[str, Any]) -> None:
        """Keep the end of a choice's text: enough to know it again, whatever its length."""
        content = message.get("content")
        if isinstance(content, str):
            self._tails[index] = (self._tails[index] + content)[-2 * TAIL_CHARACTERS :]

    def _put_together(self, choice: dict[str, Any]) -> None:
        whole = self._choices.setdefault(
            choice["index"],
            {"index": choice["index"], "message": {"role": "assistant", "content": None}, "logprobs": None},
        )
        merge(whole["message"], choice["delta"])
        merge(whole, {name: value for name, value in choice.items() if name not in ("delta", "index")})

    def feed_whole(self, answer: Any) -> bytes:
        """Take an answer that the upstream did not stream. Where it is over the grant, its text is cut in proportion."""
        if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
            raise UpstreamUnavailable("The upstream's answer is not a chat completion.")
        self._note_usage(answer.get("usage"))
        self._frame = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
        self._frame |= {"model": self._wanted.model, "object": "chat.completion.chunk"}
        choices = [choice for choice in answer["choices"] if isinstance(choice, dict)][: self._wanted.choices]
        messages = [message if isinstance(message := choice.get("message"), dict) else {} for choice in choices]
        made = self._usage.output_tokens or self._guess(messages)
        shown: list[dict[str, Any]] = []
        for index, (choice, message) in enumerate(zip(choices, messages, strict=True)):
            reason = str(choice.get("finish_reason") or "stop")
            if made > self._granted:
                self._was_cut, reason = True, "length"
                message = {
                    name: _part(value, self._granted, made)
                    for name, value in message.items()
                    if name in ("role", *TEXTS)
                }
            self.tool_calls += _new_calls(message)
            self._remember(index, message)
            self._ended[index] = reason
            shown.append({"index": index, "delta": message, "finish_reason": reason})
        self.ended_by_itself = True
        if self._wanted.stream:
            return event(_dumps({**self._frame, "choices": shown}))
        for choice in shown:
            self._put_together(choice)
        return b""

    def _guess(self, messages: list[dict[str, Any]]) -> int:
        """Take and return the number of tokens of texts that nobody counted."""
        parts = [message[name] for message in messages for name in (*TEXTS, *CALLS) if message.get(name)]
        size = sum(len(part if isinstance(part, str) else str(part)) for part in parts)
        self._estimate = -(-size // TOKEN_CHARACTERS)
        return self._estimate

    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        if not self._wanted.shows_usage:
            return DONE
        told = {"charge_nanousd": charge_nanousd, "conversation_tokens_left": conversation_left}
        return (
            event(_dumps({**self._frame, "choices": [], "usage": self._shown_usage(billed), "tokencap": told})) + DONE
        )

    def whole(self, billed: int) -> Any:
        choices = [self._choices[index] for index in sorted(self._choices)]
        frame = {**self._frame, "object": "chat.completion", "model": self._wanted.model}
        return {**frame, "choices": choices, "usage": self._shown_usage(billed)}

    def _shown_usage(self, billed: int) -> dict[str, Any]:
        """Return the upstream's usage, made to say what is billed."""
        prompt = self._usage.input_tokens
        prompt = self._wanted.input_estimate if prompt is None else prompt
        totals = {"prompt_tokens": prompt, "completion_tokens": billed, "total_tokens": prompt + billed}
        return {**self._said, **totals}


def carries_token(delta: dict[str, Any]) -> bool:
    """Return whether a delta holds something that the model wrote."""
    return any(delta.get(name) for name in (*TEXTS, *CALLS))


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else {}


def _new_calls(delta: dict[str, Any]) -> list[str]:
    calls = delta.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [call["id"] for call in calls if isinstance(call, dict) and isinstance(call.get("id"), str) and call["id"]]


def _part(value: Any, granted: int, said: int) -> Any:
    return value[: len(value) * granted // said] if isinstance(value, str) and value != "assistant" else value


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
