"""What the simulated model says in a form that was asked for fits it, and so do the arguments of its calls."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Literal

import httpx
import pytest
from pydantic import BaseModel, Field, RootModel

from gateway.simulator.model_server import Law
from gateway.simulator.schema_values import fitting, pieces_for
from tests.gateway.simulator.hosting import FAST, question, simulator
from tests.late import Library

anthropic = Library("anthropic")
openai = Library("openai")

SAID: Any = question()["messages"]


class Colour(Enum):
    RED = "red"


class Part(BaseModel):
    name: Annotated[str, Field(min_length=12)]
    kind: Literal["nut", "bolt"]
    parts: list[Part] = []


class Order(BaseModel):
    colour: Colour
    count: Annotated[int, Field(gt=3)]
    share: Annotated[float, Field(ge=0, le=0.5)]
    parts: Annotated[list[Part], Field(min_length=2)]
    note: str | None
    by: dict[str, int]
    is_paid: bool


class Letters(RootModel[Annotated[list[Annotated[str, Field(max_length=3)]], Field(min_length=1)]]):
    pass


@pytest.mark.parametrize("model", [Part, Order, Letters])
def test_the_simplest_value_fits_its_schema(model: type[BaseModel]) -> None:
    """Pydantic wrote the schema, and reads the value."""
    schema = model.model_json_schema()

    assert model.model_validate_json(json.dumps(fitting(schema)))
    assert model.model_validate_json("".join(pieces_for(schema)))


@pytest.mark.parametrize("schema", [None, {}, True, {"type": "object"}, {"type": "object", "properties": {"a": {}}}])
def test_who_asks_for_nothing_is_told_that_it_is_simulated(schema: Any) -> None:
    assert "".join(pieces_for(schema)) == '{"simulated":true}'


def test_a_schema_that_holds_itself_ends() -> None:
    assert pieces_for({"$ref": "#"})
    assert pieces_for({"required": ["a"], "properties": {"a": {"$ref": "#"}}})


def test_both_makers_clients_parse_what_they_asked_for() -> None:
    """In each format, as text and as a call, whole and streamed; as many tokens as the value has."""
    schema = {**Order.model_json_schema(), "additionalProperties": False}
    with simulator() as client:
        here = openai.OpenAI(base_url=str(client.base_url.join("/v1")), api_key="any")
        there = anthropic.Anthropic(base_url=str(client.base_url), api_key="any")
        chat = here.chat.completions.parse(model="aligned-1", messages=SAID, response_format=Order)
        with here.responses.stream(model="aligned-1", input="Hello", text_format=Order) as stream:
            response = stream.get_final_response()
        form: Any = {"format": {"type": "json_schema", "schema": schema}}
        message = there.messages.create(model="aligned-1", messages=SAID, max_tokens=900, output_config=form)
        tool: Any = {"name": "order", "input_schema": schema}
        call = there.messages.create(model="aligned-1", messages=SAID, max_tokens=900, tools=[tool])

    assert chat.choices[0].message.parsed == response.output_parsed
    assert isinstance(response.output_parsed, Order)
    assert Order.model_validate_json(message.content[0].text) == response.output_parsed  # type: ignore[union-attr]
    assert Order.model_validate(call.content[0].input) == response.output_parsed  # type: ignore[union-attr]
    assert message.usage.output_tokens == len(pieces_for(schema))


def test_a_form_is_cut_at_its_limit_like_any_text() -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "order", "schema": Order.model_json_schema()}}
    with simulator(Law(tokens_per_s=float("inf"), first_token_s=0, seed=FAST.seed)) as client:
        body = question(response_format=response_format, max_tokens=3)
        answer: Any = httpx.post(str(client.base_url.join("/v1/chat/completions")), json=body).json()

    assert answer["choices"][0]["message"]["content"] == '{"colour":"'
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 3)
