"""No member that the vendors publish for a request is dropped silently, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from gateway.errors import BadRequest
from gateway.serving.dialects.base import Dialect
from gateway.serving.dialects.registry import dialects
from gateway.serving.fields.account_names import OWN, make_own, refuse_upstream_names
from gateway.serving.fields.guarded_fields import OURS
from gateway.serving.fields.tools import Hosted
from gateway.serving.upstream.endpoint import Names
from gateway.serving.upstream.profiles import CHAT, COUNT_TOKENS, MESSAGES, PROFILES, RESPONSES, Profile
from tests.gateway.serving.fields.test_fields import BODIES, GRANT
from tests.gateway.serving.published import Body, fields_within

NAMES = Names({"abc"})
MADE_OWN = {*OWN, "metadata.user_id"}
"""Names that reach the upstream as digests."""


def through(dialect: Dialect, hosted: Hosted, body: Body) -> tuple[Body, tuple[str, ...]]:
    """Return the body sent upstream after a body's journey, and the names of its dropped parts.

    Raises:
        BadRequest: the body is refused.
    """
    dropped = hosted.leave_out(body, NAMES)
    wanted = dialect.read(body, 1000)
    refuse_upstream_names(body, frozenset())
    make_own(body, "cus_1")
    sent: Body = orjson.loads(dialect.forward(body, wanted, grant=GRANT, model="the-model"))
    return sent, dropped + wanted.dropped


def missing(value_given: Any, sent: Any, dropped: tuple[str, ...], path: str = "") -> Iterator[str]:
    """Yield the paths of values that were not sent unchanged and are not named in ``dropped``."""
    if path in dropped or value_given == sent or (path in MADE_OWN and isinstance(sent, str)):
        return
    if isinstance(value_given, dict) and isinstance(sent, dict):
        for name, value in value_given.items():
            yield from missing(value, sent.get(name), dropped, f"{path}.{name}" if path else name)
        return
    if isinstance(value_given, list):
        kept = [one for one in value_given if not is_tool_of(one, dropped)]
        if len(kept) == len(sent or ()):
            for value, other in zip(kept, sent or (), strict=True):
                yield from missing(value, other, dropped, path)
            return
    if not is_tool_of(value_given, dropped):
        yield path


def is_tool_of(value_given: Any, dropped: tuple[str, ...]) -> bool:
    """Return whether a value defines or chooses only tools that were dropped by their type, or by their only name."""
    if isinstance(value_given, list):
        return bool(value_given) and all(is_tool_of(one, dropped) for one in value_given)
    if not isinstance(value_given, dict):
        return False
    tools = value_given.get("tools") or value_given.get("allowed_tools") or value_given.get("tool")
    named = {value_given.get("type"), value_given.get("name"), next(iter(value_given), None)}
    return not named.isdisjoint(dropped) or is_tool_of(tools, dropped)


@pytest.mark.parametrize(
    ("profile", "drops"),
    [*((profile, False) for profile in PROFILES.values()), (PROFILES["any"], True)],
    ids=[*PROFILES, "any, without hosted tools"],
)
def test_no_member_is_left_out_in_silence(profile: Profile, drops: bool) -> None:
    """Each member reaches the upstream unchanged or as a rule of the gateway says, is refused by name, or is named."""
    hosted, silent = Hosted(drops=drops), {}
    for dialect in dialects(profile):
        if dialect.endpoint not in profile.speaks:
            continue
        for name, fields in fields_within(dialect.endpoint):
            body = {**BODIES[dialect.endpoint], **fields}
            try:
                sent, dropped = through(dialect, hosted, orjson.loads(orjson.dumps(body)))
            except BadRequest as refused:
                if (refused.param or "").partition(".")[0] not in body:
                    silent[dialect.endpoint, name] = f"{refused.param}: {refused.message}"
                continue
            ours = OURS[dialect.endpoint]
            if unexplained := [path for path in missing(body, sent, dropped) if path not in ours]:
                silent[dialect.endpoint, name] = f"{unexplained} beside {dropped}"

    assert silent == {}


@pytest.mark.parametrize(("endpoint", "least"), [(CHAT, 150), (RESPONSES, 700), (MESSAGES, 1300), (COUNT_TOKENS, 1300)])
def test_the_vendors_types_are_read_to_their_depth(endpoint: str, least: int) -> None:
    """Otherwise a test of no fields would pass as well."""
    assert len(fields_within(endpoint)) > least
