"""Lists the wire formats: a new format is a new file in this folder and a line in this list."""

from __future__ import annotations

from gateway.serving.dialects.base import Dialect
from gateway.serving.dialects.chat import Chat
from gateway.serving.dialects.completions import Completions
from gateway.serving.dialects.embeddings import Embeddings
from gateway.serving.dialects.messages import CountTokens, Messages
from gateway.serving.dialects.responses import Responses
from gateway.serving.upstream.profiles import Profile


def dialects(profile: Profile) -> list[Dialect]:
    """Return every dialect, for an upstream of this profile."""
    return [
        Chat(profile),
        Completions(profile),
        Responses(profile),
        Messages(profile),
        CountTokens(profile),
        Embeddings(profile),
    ]
