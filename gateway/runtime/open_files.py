"""How many files a process may have open: a server wants as many as the system allows."""

from __future__ import annotations

import resource
from contextlib import suppress

UNBOUNDED = 10_240
"""How many are asked for where the system sets no bound: what macOS, which sets none, lets a process have by default."""


def files_allowed() -> int:
    """Return how many files a process of ours may have open, once it has asked for them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNBOUNDED if hard == resource.RLIM_INFINITY else hard


def open_as_many_as_allowed() -> None:
    """Raise this process's soft limit to the hard one, as servers do.

    Most systems begin with 1,024. A call takes two, to its caller and to the model, and who finds none breaks off others.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files_allowed():
        with suppress(ValueError, OSError):  # a system may have another bound besides
            resource.setrlimit(resource.RLIMIT_NOFILE, (files_allowed(), hard))
