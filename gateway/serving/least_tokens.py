"""An upstream's least number of tokens: where less is left than it takes, the cap is reached, and no field is wrong."""

from __future__ import annotations

import re

from gateway.errors import ConversationCapReached, InsufficientQuota, TokencapError, UpstreamRefused
from gateway.holds.hold import Hold
from gateway.serving.dialects.parameters import Wanted

LIMITS = re.compile(r"max_(?:completion_|output_)?tokens")
TOO_LITTLE = re.compile(
    r"below minimum|(?:>=|greater than(?: or equal to)?|at least|minimum(?: value)? (?:of|is))\s*\d", re.IGNORECASE
)


def cap_reached(error: UpstreamRefused, wanted: Wanted, hold: Hold) -> TokencapError:
    """Return what a caller hears of an upstream's refusal: that its cap is reached, where the grant was too little for it.

    A limit of the caller's own that is too little is the upstream's to refuse.
    """
    named = LIMITS.fullmatch(error.param or "") or LIMITS.search(error.message)
    is_too_little = error.code == "integer_below_min_value" or TOO_LITTLE.search(error.message)
    is_callers = wanted.requested_tokens is not None and wanted.requested_tokens <= hold.grant
    if not (named and is_too_little) or is_callers:
        return error
    left = f"{hold.grant} tokens are left, which is less than the model's endpoint takes for an answer"
    if hold.bound_by == "period":
        return InsufficientQuota(f"Of the period's tokens {left}.")
    return ConversationCapReached(f"Of this conversation's tokens {left}; begin a new one.")
