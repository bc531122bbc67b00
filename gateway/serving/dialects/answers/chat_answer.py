"""Reads one chat completion, streamed or whole."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from gateway.errors import UpstreamUnavailable
from gateway.serving.dialects.answers.assembly import joined, take
from gateway.serving.dialects.answers.choice_usages import ChoiceUsages
from gateway.serving.dialects.answers.fast_path import FastPath, fast_path_of
from gateway.serving.dialects.answers.stream import TAIL_KEPT, Reading, strings_in
from gateway.serving.dialects.parameters import Parameters
from gateway.serving.fields.answer_fields import CHOICE, CHUNK, DELTA, without_houses_own, without_unknown_texts
from gateway.serving.json_codec import dumps
from gateway.serving.meter import Usage, count, reported_output
from gateway.serving.sse import DONE, event

THOUGHT = ("reasoning_content", "reasoning", "reasoning_text", "thinking")
TEXTS = ("content", "refusal", *THOUGHT)
SPOKEN = ("content", "refusal", "tool_calls", "function_call")
WRITTEN = frozenset({*TEXTS, *SPOKEN, "audio"})
THOUGHTS = frozenset({"reasoning_details", "thinking_blocks"})
"""Lists of parts of reasoning; encrypted parts are not text."""
BESIDE = (WRITTEN | THOUGHTS) - {"content"}
THOUGHT_IN = ("text", "summary", "thinking")
ENDED = frozenset({"index", "delta", "text", "logprobs", "finish_reason", "native_finish_reason", "stop_reason"})
"""Fields that are not relayed for a choice that has ended; other fields, such as a filter's result, still are."""

REPEATED = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier", "obfuscation"})
"""The fields of every chunk."""


class ChatReading(Reading):
    """Reads chunks of choices, each with a delta; then the usage where it was requested, and ``[DONE]``."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    known = CHOICE - {"text"}
    _is_unstreamed = False
    _begun = 0  # the number of choices whose beginnings were sent to the caller: the lowest indices
    _like: FastPath | None = None
    _text_of: int | None = None  # the choice of the last chunk, where the chunk had only content of this choice

    def __init__(self, request: Parameters, grant: int) -> None:
        super().__init__(request, grant)
        self._frame = self._lacked()  # the fields that every chunk repeats, such as id and created
        self._carried: dict[str, Any] = {}  # fields of chunks that were not relayed, for the next chunk
        self._messages: list[dict[str, Any]] = [
            {} for _ in range(request.choices)
        ]  # the assembled deltas of each choice
        self._choices: dict[int, dict[str, Any]] = {}  # assembled choices, for a caller that does not stream
        self._last: dict[int, dict[str, Any]] = {}  # the ends of choices, held back until no more text can follow
        self._come: set[int] = set()  # choices of which anything has arrived
        self._usages = ChoiceUsages.of(request)

    def _take_run(self, events: list[bytes], start: int) -> tuple[int, bytes]:
        fast_path = self._like
        if fast_path is None or fast_path.index in self._ended or self._halves.held:
            return 0, b""
        index = fast_path.index
        taken, text, shown = fast_path.run(events, start, self._grant - self._tokens[index])
        if taken:
            self._tokens[index] += taken
            self._is_final = False  # an earlier usage does not count the new text
            self._characters += len(text)
            self._tails[index] = (self._tails[index] + text)[-TAIL_KEPT:]
            if self.texts is not None:
                self.texts[index].append(text)
        return taken, shown

    def _take_parsed(self, data: bytes, event: dict[str, Any]) -> bytes:
        self._text_of = None
        shown = self._take(event)
        if self._text_of is not None and not self._halves.held:
            self._like = fast_path_of(data, shown, self._text_of)
        return shown

    def _choice_of_text(self, shown: list[dict[str, Any]]) -> int | None:
        """Return a chunk's only choice if its delta has content and nothing else, and it has no end and no logprobs."""
        if len(shown) != 1:
            return None
        choice = shown[0]
        new = self._delta(choice)
        if choice.get("finish_reason") or choice.get("logprobs") or not new.get("content"):
            return None
        says_more = len(new) > 1 and any(value for name, value in new.items() if name != "content")
        return None if says_more else int(choice["index"])

    def _take(self, chunk: dict[str, Any]) -> bytes:
        usage, choices = chunk.pop("usage", None), chunk.pop("choices", None)
        chunk["model"] = self._request.model
        chunk = without_unknown_texts(chunk, CHUNK)
        without_houses_own(chunk)
        self._note_frame(chunk)
        parts: list[tuple[dict[str, Any], dict[str, Any], bool]] = []
        has_text = False
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                if "usage" in choice:
                    usage = choice.pop("usage") or usage  # Kimi's place for the usage
                choice = without_unknown_texts(choice, self.known)
                delta = self._delta(choice)
                is_token = carries_token(delta)  # the delta has text of the model
                if is_token:
                    has_text = True
                    self._go_on(choice.get("index", 0))
                parts.append((choice, delta, is_token))
        crosses = False
        if isinstance(usage, dict):
            indices = [choice.get("index", 0) for choice, _, _ in parts]
            reported = read_usage(usage)
            if self._usages is not None:
                reported = self._usages.of_all(reported, indices, has_text=has_text)
                self._largest_output = self._usages.largest_output or self._largest_output
                self._is_partial = self._usages.is_partial
            crosses = has_text and self._is_over_grant(reported.output_tokens)
            if not crosses:
                self._note_usage(usage, reported)
                self._is_final &= self._usages is None or self._usages.are_all_here
        shown: list[dict[str, Any]] = []
        for choice, delta, is_token in parts:
            part = self._visible_part(choice, delta, is_token, crosses=crosses)
            if part is not None:
                shown.append(part)
        if has_text:
            self._note_text()
        if not self._request.stream:
            for choice in shown:
                self._assemble(choice)
            return b""
        if not shown:
            self._carried |= {name: value for name, value in chunk.items() if value and name not in REPEATED}
            return b""
        if self._begun < self._request.choices:
            shown = self._in_order(shown)
        relayed = {**self._carried, **chunk, "choices": shown}
        if self._carried:
            self._carried = {}
        elif not usage and len(parts) == 1:
            self._text_of = self._choice_of_text(shown)
        if self._request.shows_usage:
            relayed["usage"] = None  # the usage comes in the last chunk
        return event(dumps(relayed))

    def _visible_part(
        self, choice: dict[str, Any], delta: dict[str, Any], is_token: bool, *, crosses: bool
    ) -> dict[str, Any] | None:
        """Count a choice's part of a chunk; return the part that the caller may see, or None."""
        index = choice.get("index", 0)
        if type(index) is not int or not 0 <= index < self._request.choices:
            return None
        if index in self._ended:
            more = {name: value for name, value in choice.items() if value and name not in ENDED}
            if not more or index not in self._last:
                return None
            return {**more, "index": index, **self._shown({}), "finish_reason": None}
        self._come.add(index)
        if is_token:
            if not self._counts(index, crosses=crosses):
                return {"index": index, **self._shown({}), "logprobs": None, "finish_reason": "length"}
            self._remember(index, delta.get("content"))
        reason = choice.get("finish_reason")
        if not isinstance(reason, str) or not reason:
            reason = None
        changes = take(self._messages[index], delta, keeps=not self._request.stream) if delta else delta
        if is_token:
            self._wrote_texts(index, _texts_in(changes))
        if "tool_calls" in changes:
            self.tool_calls += _new_calls(changes)
        visible = {**choice, "index": index, **self._shown(changes)}
        visible["finish_reason"] = None if self._request.stream else reason
        if reason:
            self._ended[index] = str(reason)
            self._last[index] = self._end_of(index, reason)
        return visible

    def _in_order(self, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a chunk's choices, preceded by empty lower choices that have not begun: clients go by places."""
        latest = max(choice["index"] for choice in shown)
        present = {choice["index"] for choice in shown}
        new = [index for index in range(self._begun, latest) if index not in present]
        self._begun = max(self._begun, latest + 1)
        begun = [{"index": index, **self._shown({}), "logprobs": None, "finish_reason": None} for index in new]
        return sorted([*begun, *shown], key=itemgetter("index")) if begun else shown

    def _go_on(self, index: Any) -> None:
        """Note more text for a choice, whose earlier end is then void: some upstreams write an end in each chunk."""
        if type(index) is int and index in self._last:
            del self._last[index], self._ended[index]
            self._is_final = False

    def _end_of(self, index: int, reason: Any) -> dict[str, Any]:
        return {"index": index, **self._shown({}), "logprobs": None, "finish_reason": reason}

    def _done(self) -> bytes:
        """Note that nothing more comes: each choice without a reason, up to the highest that began, ended by itself."""
        for index in sorted({*range(max(self._come, default=-1) + 1)} - self._ended.keys()):
            message = self._messages[index]
            self._ended[index] = reason = "tool_calls" if message.get("tool_calls") else "stop"
            self._last[index] = self._end_of(index, reason)
            if not self._request.stream:
                self._assemble(self._last[index])
        return self._ends_shown()

    def close(self) -> bytes:
        shown = super().close()
        return shown + self._ends_shown() if self.ended_by_itself else shown

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return a choice's delta."""
        delta = choice.get("delta")
        return without_unknown_texts(delta, DELTA) if isinstance(delta, dict) else {}

    def _message(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return a choice's message, in an answer that was not streamed."""
        message = choice.get("message")
        return without_unknown_texts(message, DELTA) if isinstance(message, dict) else {}

    def _shown(self, delta: dict[str, Any]) -> dict[str, Any]:
        """Return the field of a choice in a chunk that has this delta."""
        return {"delta": delta}

    def _whole_choice(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the field of a choice in a whole answer that has this message."""
        return {"message": message}

    def _note_frame(self, chunk: dict[str, Any]) -> None:
        """Take a chunk's fields beside its choices, and give it what it lacks: a first or last chunk may have no id."""
        if self._request.stream and chunk.get("id"):
            self._frame = chunk
            return
        frame = self._frame
        if chunk == frame:
            return
        for name, value in self._lacked().items():
            if chunk.get(name) is None:
                chunk[name] = value
        stable = {name: frame[name] for name in ("id", "object", "created") if frame.get(name)}
        self._frame = {**chunk, **frame, **{name: value for name, value in chunk.items() if value}, **stable}
        chunk |= stable

    def _lacked(self) -> dict[str, Any]:
        """Return the fields that clients need in every chunk and answer, for an upstream that leaves them out."""
        return {"id": "", "object": self.chunk_kind, "created": 0, "model": self._request.model}

    def _assemble(self, choice: dict[str, Any]) -> None:
        index = choice["index"]
        assembled = self._choices.setdefault(index, {"index": index, "message": {}, "logprobs": None})
        take(assembled, {name: value for name, value in choice.items() if name != "delta"})

    def _whole(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return a choice assembled from its pieces."""
        assembled = joined(self._messages[choice["index"]])
        message = {"role": "assistant", "content": None, **assembled}
        return {**joined(choice), "message": {**message, "role": message["role"] or "assistant"}}

    def feed_whole(self, answer: Any) -> bytes:
        if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
            raise UpstreamUnavailable("The upstream's answer is not a completion.")
        usage = answer.get("usage")
        if isinstance(usage, dict):
            self._note_usage(usage, read_usage(usage))
        frame = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
        without_houses_own(frame)
        self._frame |= without_unknown_texts(frame, CHUNK)
        self._frame |= {"model": self._request.model, "object": self.chunk_kind}
        parts: list[tuple[dict[str, Any], dict[str, Any]]] = []
        texts: list[str] = []
        for choice in answer["choices"]:
            if isinstance(choice, dict) and len(parts) < self._request.choices:
                choice = without_unknown_texts(choice, self.known)
                message = self._message(choice)
                parts.append((choice, message))
                texts += _texts_in(message)
        made = self._made(texts)
        if self._estimate is None:
            speaking = sum(carries_token(message) for _, message in parts) if len(parts) > 1 else 1
            self._largest_output = made - max(speaking - 1, 0)
        numbers = _numbers([choice for choice, _ in parts])
        for place, (choice, message) in enumerate(parts):
            if made > self._granted:
                self._was_cut = True
                full = {name: text for name in TEXTS if isinstance(text := message.get(name), str)}
                cut = {name: self._part(text, made) for name, text in full.items()}
                message = {name: value for name, value in message.items() if name == "role"} | cut
                choice = {**choice, "logprobs": None, "finish_reason": "length"}
            if "tool_calls" in message:
                self.tool_calls += _new_calls(message)
            self._remember(place, message.get("content"))
            if self.texts is not None:
                self._keep(place, _texts_in(message))
            self._ended[place] = str(choice.get("finish_reason") or "stop")
            self._choices[place] = {**choice, "index": numbers[place], **self._whole_choice(message)}
        self.ended_by_itself = self._is_unstreamed = True
        if not self._request.stream:
            return b""
        shown = [
            {
                **{name: value for name, value in choice.items() if name not in self._whole_choice(message)},
                **self._shown(take({}, message, keeps=False)),
                "finish_reason": self._ended[place],
            }
            for place, (choice, message) in enumerate(
                (choice, self._message(choice)) for choice in self._choices.values()
            )
        ]
        return event(dumps({**self._frame, "choices": shown}))

    def ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        return self._ends_shown() + self._ending(billed, charge_nanousd, conversation_left)

    def _ends_shown(self) -> bytes:
        """Return the chunk with the held ends of choices, once no more text can follow."""
        ends, self._last = list(self._last.values()), {}
        if not ends or not self._request.stream:
            return b""
        usage = {"usage": None} if self._request.shows_usage else {}
        return event(dumps({**self._frame, "choices": ends, **usage}))

    def _ending(self, billed: int, charge_nanousd: int | None, conversation_left: int | None) -> bytes:
        if not self._request.shows_usage:
            return DONE
        own = {"charge_nanousd": charge_nanousd, "conversation_tokens_left": conversation_left}
        return event(dumps({**self._frame, "choices": [], "usage": self._shown_usage(billed), "tokencap": own})) + DONE

    def whole(self, billed: int) -> Any:
        choices = [self._choices[index] for index in sorted(self._choices)]
        if not self._is_unstreamed:
            choices = [self._whole(choice) for choice in choices]
        frame = {**self._frame, "object": self.kind, "model": self._request.model}
        return {**frame, "choices": choices, "usage": self._shown_usage(billed)}

    def _shown_usage(self, billed: int) -> dict[str, Any]:
        """Return the upstream's usage with the billed counts."""
        prompt = self._input
        totals = {"prompt_tokens": prompt, "completion_tokens": billed, "total_tokens": prompt + billed}
        return {**self._reported_usage, **totals}


def read_usage(reported: dict[str, Any]) -> Usage:
    """Return the usage that OpenAI's completions report; SGLang reports reasoning tokens beside the other counts."""
    prompt, completion = reported.get("prompt_tokens_details"), reported.get("completion_tokens_details")
    cached = prompt.get("cached_tokens") if isinstance(prompt, dict) else None
    reasoning = completion.get("reasoning_tokens") if isinstance(completion, dict) else reported.get("reasoning_tokens")
    thought, input_tokens = (count(reasoning) or 0) if reasoning else 0, count(reported.get("prompt_tokens"))
    output, is_disputed = reported_output(
        count(reported.get("completion_tokens")), thought, input_tokens, count(reported.get("total_tokens"))
    )
    return Usage(
        output_tokens=output,
        input_tokens=input_tokens,
        cached_tokens=(count(cached) or 0) if cached else 0,
        reasoning_tokens=thought,
        is_disputed=is_disputed,
    )


def carries_token(delta: dict[str, Any]) -> bool:
    """Return whether a delta has text of the model."""
    if not delta:
        return False
    if delta.get("content"):
        return True
    return any(map(delta.get, WRITTEN.intersection(delta))) or any(
        _is_thought(part)
        for name in THOUGHTS.intersection(delta)
        if isinstance(delta[name], list)
        for part in delta[name]
    )


def _texts_in(message: dict[str, Any]) -> list[str]:
    """Return the model's texts in a message or a delta; reasoning that is there as text and in parts counts once."""
    content = message.get("content")
    if isinstance(content, str) and (BESIDE.isdisjoint(message) or not any(map(message.get, BESIDE))):
        return [content]
    audio, lists = message.get("audio"), [value for name in THOUGHTS if isinstance(value := message.get(name), list)]
    spoken = [*map(message.get, SPOKEN), audio.get("transcript") if isinstance(audio, dict) else None]
    thought = [value for name in THOUGHT if (value := message.get(name))]
    if not thought:
        thought = [part.get(name) for parts in lists for part in parts if _is_thought(part) for name in THOUGHT_IN]
    return [*strings_in(spoken), *dict.fromkeys(strings_in(thought))]


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and any(map(part.get, THOUGHT_IN))


def _numbers(choices: list[dict[str, Any]]) -> list[int]:
    """Return the numbers of an answer's choices: their own, or their places if a number is missing or occurs twice."""
    own = [index for choice in choices if type(index := choice.get("index")) is int]
    return own if len(set(own)) == len(choices) else list(range(len(choices)))


def _new_calls(delta: dict[str, Any]) -> list[str]:
    calls = delta.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [call["id"] for call in calls if isinstance(call, dict) and isinstance(call.get("id"), str) and call["id"]]
