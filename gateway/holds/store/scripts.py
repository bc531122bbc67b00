"""The Lua scripts, one verb a file; each script is loaded behind the shared parts that it uses."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import redis
from redis.exceptions import NoScriptError

from gateway.holds.store.connection import RedisConnection

_LUA = files("gateway.holds") / "lua"
_COMMENT = re.compile(r"--.*")
_NAME = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)


@cache
def source(verb: str) -> str:
    """Return the script of a verb: the flags that it declares, the shared parts that it uses, then its own text."""
    path = _LUA / f"{verb}.lua"
    text = (path if path.is_file() else _LUA / "maintenance" / f"{verb}.lua").read_text("utf-8")
    declared, rest = text.split("\n", 1) if text.startswith("#!") else ("", text)
    for name, part in reversed(_shared_parts().items()):
        if re.search(rf"\b{name}\b", _COMMENT.sub("", rest)):
            rest = f"{part}\n\n{rest}"
    return "\n".join(filter(None, (declared, rest)))


@cache
def _shared_parts() -> dict[str, str]:
    """Return the parts of ``shared.lua`` by the name that each part defines."""
    parts = (_LUA / "shared.lua").read_text("utf-8").strip().split("\n\n")
    return {name: part for part in parts for name in _NAME.findall(part)}


ScriptCall = tuple[list[str], list[str | int]]
"""The input of a script: keys and arguments."""


def run_all(client: redis.Redis, script: Callable[..., Any], calls: Sequence[ScriptCall]) -> list[Any]:
    """Run a registered script for each call and return the replies: all in one batch, which waits for the disk once."""
    if isinstance(client, redis.RedisCluster):  # redis-py sends no scripts in a cluster's pipelines
        return [script(keys=names, args=arguments) for names, arguments in calls]
    with client.pipeline(transaction=False) as batch:
        for names, arguments in calls:
            script(keys=names, args=arguments, client=batch)
        return batch.execute()


def run_joined(client: redis.Redis, script: Callable[..., Any], calls: Sequence[ScriptCall], *shared: str) -> list[Any]:
    """Run a script that takes several calls in one command, after the arguments that the calls share.

    Returns the replies of all calls, of which the script makes one list. A cluster, where a command stays in one slot,
    is sent a command for each call.
    """
    if isinstance(client, redis.RedisCluster):
        replies = [script(keys=names, args=[*shared, *arguments]) for names, arguments in calls]
        return [reply for joined in replies for reply in joined or ()]
    names = [name for names, _ in calls for name in names]
    replies = script(keys=names, args=[*shared, *(argument for _, arguments in calls for argument in arguments)])
    return replies or []


class Script:
    """One verb as it is sent to a server: by its digest, or as source where the server lacks it."""

    def __init__(self, verb: str) -> None:
        self._text = source(verb)
        self._sha = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def run_by_digest(
        self, connection: RedisConnection, keys: Sequence[str], arguments: Sequence[bytes | str | int]
    ) -> Awaitable[Any]:
        """Return the reply of a server that has the verb; NoScriptError where it does not."""
        return connection.execute("EVALSHA", self._sha, len(keys), *keys, *arguments)

    def run_with_source(
        self, connection: RedisConnection, keys: Sequence[str], arguments: Sequence[bytes | str | int]
    ) -> Awaitable[Any]:
        """Return the reply of a server that is sent the verb's source, and has the verb from then on."""
        return connection.execute("EVAL", self._text, len(keys), *keys, *arguments)

    async def run(
        self, connection: RedisConnection, keys: Sequence[str], arguments: Sequence[bytes | str | int]
    ) -> Any:
        """Return the reply of a server, whether or not it has the verb."""
        try:
            return await self.run_by_digest(connection, keys, arguments)
        except NoScriptError:
            return await self.run_with_source(connection, keys, arguments)
