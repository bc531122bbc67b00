"""Each client, as its makers ship it, completes, streams, calls tools, and understands caps, quotas and refusals."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.conformance.client import Late, Refused, Where
from tests.conformance.clients.apart import APART
from tests.conformance.clients.driver import Driven
from tests.conformance.clients.node import NODE
from tests.conformance.conftest import ANSWER_TOKENS, CAP, TOOL_CALLS
from tests.loop.rig import Rig, Sold

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
VERCEL = dict.fromkeys((401, 404, 429), "APICallError")
CLIENTS: dict[str, Any] = {
    "openai, chat": Late("openai_chat"),
    "openai, completions": Late("openai_legacy"),
    "openai, responses": Late("openai_responses"),
    "openai, responses by their id": Late("openai_linked"),
    "anthropic": Late("anthropic_messages"),
    "openai for Node, chat": Driven(NODE, "openai_chat", CHAT),
    "openai for Node, responses": Driven(NODE, "openai_responses", RESPONSES),
    "anthropic for Node": Driven(NODE, "anthropic_messages", MESSAGES),
    "LangChain": Late("langchain"),
    "Pydantic AI on openai": Late("pydantic_agents", CHAT),
    "Pydantic AI on anthropic": Late("pydantic_agents", MESSAGES),
    "instructor": Driven(APART, "instructor_chat", CHAT),
    "Agents SDK": Driven(APART, "openai_agents", RESPONSES, mode="responses"),
    "Agents SDK, chat": Driven(APART, "openai_agents", CHAT, mode="chat"),
    "LlamaIndex": Driven(APART, "llama_index_chat", CHAT),
    "Vercel": Driven(NODE, "vercel", RESPONSES, {**VERCEL, 429: "RetryError"}, mode="responses"),
    "Vercel, chat": Driven(NODE, "vercel", CHAT, VERCEL, mode="chat", maxRetries=0),
    "Vercel on anthropic": Driven(NODE, "vercel", MESSAGES, VERCEL, mode="messages", maxRetries=0),
    "Vercel, compatible": Driven(NODE, "vercel", CHAT, VERCEL, mode="compatible", maxRetries=0),
    "LangChain for Node": Driven(NODE, "langchain", CHAT, mode="chat"),
    "LangChain for Node, responses": Driven(NODE, "langchain", RESPONSES, mode="responses"),
    "LangChain for Node on anthropic": Driven(NODE, "langchain", MESSAGES, mode="messages"),
    "LiteLLM": Driven(APART, "litellm_client", CHAT, maker="openai"),
    "LiteLLM on messages": Driven(APART, "litellm_client", MESSAGES, maker="anthropic"),
    "curl": Late("curl"),
}
WITHOUT_TOOLS = {"openai, completions", "instructor"}
TRIES = {"LlamaIndex": 4, "Vercel": 6}
"""How often clients that ignore ``x-should-retry: false`` request an answer and a stream beyond their quota."""

WITHOUT_ENDINGS = {"Agents SDK, chat"}
"""Clients that do not show why an answer ended."""

WITH_OBJECTS: dict[str, Driven] = {
    "instructor, by a tool": Driven(APART, "instructor_chat", CHAT, mode="tools"),
    "instructor, by a schema": Driven(APART, "instructor_chat", CHAT, mode="schema"),
    "Agents SDK": Driven(APART, "openai_agents", RESPONSES, mode="responses"),
    "LlamaIndex": Driven(APART, "llama_index_chat", CHAT),
    "Vercel": Driven(NODE, "vercel", RESPONSES, mode="responses"),
    "Vercel, chat": Driven(NODE, "vercel", CHAT, mode="chat"),
    "Vercel on anthropic": Driven(NODE, "vercel", MESSAGES, mode="messages"),
    "LangChain for Node": Driven(NODE, "langchain", CHAT, mode="chat", maxRetries=0),
}
"""Clients that return objects of a class or schema."""
CUT_OBJECTS = {
    **dict.fromkeys(("instructor, by a tool", "instructor, by a schema"), "IncompleteOutputException"),
    **dict.fromkeys(("Vercel", "Vercel, chat", "Vercel on anthropic"), "NoObjectGeneratedError"),
    "Agents SDK": "ModelBehaviorError",
    "LlamaIndex": "ValueError",
    "LangChain for Node": "LengthFinishReasonError",
}
"""What they raise when the cap cuts an object. By default LangChain for Node would retry six times."""

WITH_ANSWERS: dict[str, Driven] = {
    "by a tool": Driven(NODE, "langchain", CHAT, mode="chat", method="functionCalling"),
    "responses": Driven(NODE, "langchain", RESPONSES, mode="responses", method="jsonSchema"),
    "responses, by a tool": Driven(NODE, "langchain", RESPONSES, mode="responses", method="functionCalling"),
    "on anthropic": Driven(NODE, "langchain", MESSAGES, mode="messages", method="jsonSchema"),
    "on anthropic, by a tool": Driven(NODE, "langchain", MESSAGES, mode="messages", method="functionCalling"),
}
"""LangChain for Node where it does not check the ending itself, with ``includeRaw``: the answer beside the object."""

every_client = pytest.mark.parametrize("name", CLIENTS)
OPENING = "This answer is simulated:"


def refused(house: Rig) -> dict[str, int]:
    """Return how many requests were refused so far, by code."""
    lines = house.admin.get("/metrics").text.splitlines()
    counted = [line.split('"') for line in lines if line.startswith("tokencap_refusals_total{")]
    return {code: int(float(count.removeprefix("} "))) for _, code, count in counted}


def where(house: Rig, who: Sold) -> Where:
    return Where(house.url, who.key)


@every_client
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_it_gets_its_answer(house: Rig, name: str, stream: bool) -> None:
    client, who = CLIENTS[name], house.customer("open")
    answer = client.stream(where(house, who)) if stream else client.complete(where(house, who))

    assert answer.text.startswith(OPENING)
    assert not answer.was_cut
    (record,) = house.usage(who)
    outcome = (record["endpoint"], record["stream"], record["finish"], record["output_tokens"], record["usage_source"])
    assert outcome == (client.endpoint, stream, "complete", ANSWER_TOKENS, "upstream")


@every_client
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_it_is_cut_at_the_cap_and_can_tell(house: Rig, name: str, stream: bool) -> None:
    client, who = CLIENTS[name], house.customer("small")
    answer = client.stream(where(house, who)) if stream else client.complete(where(house, who))

    assert answer.text.startswith(OPENING)
    assert answer.was_cut or name in WITHOUT_ENDINGS
    (record,) = house.usage(who)
    assert (record["finish"], record["billed_output_tokens"], record["charge_nanousd"]) == ("cap", CAP, 9)


@pytest.mark.parametrize("name", [name for name in CLIENTS if name not in WITHOUT_TOOLS])
def test_an_agent_that_loops_over_twenty_tool_calls_is_one_conversation_and_pays_once(house: Rig, name: str) -> None:
    client, who = CLIENTS[name], house.customer("open")
    results = client.loop(where(house, who))

    assert results == TOOL_CALLS
    records = house.usage(who)
    assert len(records) == TOOL_CALLS + 1
    assert len({record["conversation"] for record in records}) == 1
    assert [record["charge_nanousd"] for record in records] == [9, *[0] * TOOL_CALLS]
    assert {record["finish"] for record in records} == {"tool_calls", "complete"}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("name", WITH_OBJECTS)
def test_it_gets_an_object_that_fits(house: Rig, name: str, stream: bool) -> None:
    client, who = WITH_OBJECTS[name], house.customer("open")

    assert client.structure(where(house, who), stream=stream) == {"name": "simulated", "length_m": 1}
    (record,) = house.usage(who)
    assert (record["endpoint"], record["usage_source"]) == (client.endpoint, "upstream")


@pytest.mark.parametrize("name", CUT_OBJECTS)
def test_an_object_that_is_cut_at_the_cap_is_none(house: Rig, name: str) -> None:
    client, who = WITH_OBJECTS[name], house.customer("small")
    with pytest.raises(Refused) as error:
        client.structure(where(house, who), stream=False)

    assert error.value.name == CUT_OBJECTS[name]
    assert {(one["finish"], one["billed_output_tokens"]) for one in house.usage(who)} == {("cap", CAP)}


@pytest.mark.parametrize("name", WITH_ANSWERS)
def test_who_asks_for_the_answer_beside_an_object_hears_that_it_was_cut(house: Rig, name: str) -> None:
    client, who, small = WITH_ANSWERS[name], house.customer("open"), house.customer("small")
    whole, cut = client.structure_and_answer(where(house, who)), client.structure_and_answer(where(house, small))

    assert (whole["parsed"], whole["was_cut"]) == ({"name": "simulated", "length_m": 1}, False)
    assert (cut["parsed"] or None, cut["was_cut"]) == (None, True)
    assert [(one["finish"], one["billed_output_tokens"]) for one in house.usage(small)] == [("cap", CAP)]


@every_client
def test_its_refusals_are_the_exceptions_it_documents(house: Rig, name: str) -> None:
    """Each refusal ends at the first try, since no retry could change it."""
    client, who, scarce = CLIENTS[name], house.customer("open"), house.customer("scarce")
    client.complete(where(house, scarce))
    before = refused(house)
    cases = [
        (lambda: client.complete(Where(house.url, "tc-00-" + "x" * 43)), 401, "invalid_api_key"),
        (lambda: client.complete(where(house, who), model="gpt-9"), 404, "model_not_found"),
        (lambda: client.complete(where(house, scarce)), 429, "insufficient_quota"),
        (lambda: client.stream(where(house, scarce)), 429, "insufficient_quota"),
    ]
    for call, status, code in cases:
        with pytest.raises(Refused) as error:
            call()
        assert error.value.name == client.exceptions[status]
        assert error.value.status in (status, None)
        assert error.value.code in (code, None)
    since = {code: count - before.get(code, 0) for code, count in refused(house).items()}
    expected = {"invalid_api_key": 1, "model_not_found": 1, "insufficient_quota": TRIES.get(name, 2)}
    assert {code: since[code] for _, _, code in cases} == expected


def test_embeddings_and_counts_are_metered_too(house: Rig) -> None:
    """Neither has output tokens; embeddings are metered by their input, and a token count has no tokens."""
    from tests.conformance.clients import anthropic_messages, openai_chat

    who = house.customer("open")
    vectors = openai_chat.connect(where(house, who)).embeddings.create(model="aligned-1-embedding", input=["a", "b"])
    counted = anthropic_messages.connect(where(house, who)).messages.count_tokens(
        model="aligned-1", messages=[{"role": "user", "content": "Hello"}]
    )

    assert [len(one.embedding) for one in vectors.data] == [8, 8]
    assert counted.input_tokens == 6
    outcome = [(one["endpoint"], one["input_tokens"], one["output_tokens"], one["finish"]) for one in house.usage(who)]
    assert outcome == [("/v1/embeddings", 10, 0, "complete"), ("/v1/messages/count_tokens", 0, 0, "complete")]


def test_both_makers_clients_find_the_models(house: Rig) -> None:
    from tests.conformance.clients import anthropic_messages, openai_chat

    here = where(house, house.customer("open"))
    names = ["aligned-1", "aligned-1-embedding"]

    assert [model.id for model in openai_chat.connect(here).models.list()] == names
    assert [model.id for model in anthropic_messages.connect(here).models.list()] == names
    assert anthropic_messages.connect(here).models.retrieve("aligned-1").display_name == "aligned-1"


def test_an_answer_of_somebody_else_cannot_be_gone_on_from(house: Rig) -> None:
    own, other = house.customer("open"), house.customer("open")
    body = {"model": "aligned-1", "input": "Hello"}
    answer = httpx.post(f"{house.url}/v1/responses", json=body, headers=own.headers).json()
    linked = {**body, "previous_response_id": answer["id"]}
    refused = httpx.post(f"{house.url}/v1/responses", json=linked, headers=other.headers)

    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "previous_response_not_found"
    assert httpx.post(f"{house.url}/v1/responses", json=linked, headers=own.headers).status_code == 200
