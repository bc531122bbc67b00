"""Decides what a refused reservation means for the caller: another try with fewer tokens, or an error."""

from __future__ import annotations

from gateway.errors import (
    AccountInconsistent,
    CallerError,
    ConversationCapReached,
    EndUserQuotaReached,
    HouseError,
    InsufficientQuota,
    MeteringUnavailable,
    RateLimitExceeded,
    Reached,
)
from gateway.holds.hold import Facts, ReservationRequest
from gateway.holds.offer import HouseLimits, Offer
from pricing.money import MOST, affordable, metered_bound


def affordable_tokens(offered: Offer, request: ReservationRequest, reply: list[str], house: HouseLimits) -> int | None:
    """Return how many tokens per choice the remaining spend pays for, or None where the call is to be refused.

    Only metered tokens are sold in a smaller amount: a price per conversation buys the full cap or nothing.
    """
    if reply[1] != "spend" or offered.price_nanousd or not offered.output_nanousd_per_mtok or not request.generates:
        return None
    spend_left, allowed = int(reply[2]), int(reply[5])
    spend_left -= metered_bound(request.input_bound, offered.input_nanousd_per_mtok)
    affordable_per_choice = min(affordable(spend_left, offered.output_nanousd_per_mtok) // request.choices, allowed)
    return affordable_per_choice if affordable_per_choice >= min(house.grant_tokens_min, allowed) else None


def refusal(
    offered: Offer, facts: Facts, reply: list[str], now_ms: int, *, most_tokens: int, grant_min: int
) -> CallerError | HouseError:
    """Return the error of a refused call, with the limit that it reached.

    ``most_tokens`` is how many tokens a choice may have; without a price per conversation, ``grant_min`` may be enough.
    """
    error = _error(offered, facts, reply, now_ms)
    error.reached = _reached(offered, facts, reply, most_tokens, grant_min)
    return error


def _reached(offered: Offer, facts: Facts, reply: list[str], most_tokens: int, grant_min: int) -> Reached | None:
    reason = reply[1]
    allowed = int(reply[5]) if reason in ("period", "end user") else most_tokens
    tokens = allowed * facts.choices
    smallest = tokens if offered.price_nanousd else min(allowed, grant_min) * facts.choices
    limits = {
        "conversation": ("conversation_tokens_max", offered.conversation_tokens_max, tokens),
        "conversation input": (
            "conversation_input_tokens_max",
            offered.conversation_input_tokens_max,
            facts.input_bound,
        ),
        "period": ("period_tokens_max", offered.period_tokens_max, tokens),
        "end user": ("end_user_period_tokens_max", offered.end_user_period_tokens_max, tokens),
        "spend": ("spend_nanousd_max", offered.spend_nanousd_max, int(reply[6]) if reason == "spend" else 0),
        "concurrency": ("concurrency_max", offered.concurrency_max, 1),
    }
    if reason == "rate":
        return Reached("requests_per_minute", offered.requests_per_minute, requested=1)
    if reason not in limits:
        return None
    name, limit, requested = limits[reason]
    used, needed = int(reply[3]), smallest if reason == "period" else requested
    lasts = reason in ("period", "spend") and limit is not None and used + needed > limit
    period = (facts.period_start, facts.period_end) if lasts else None
    return Reached(name, limit, used, int(reply[4]), requested, period)


def _error(offered: Offer, facts: Facts, reply: list[str], now_ms: int) -> CallerError | HouseError:
    """Return the error, which names the limit, its remaining amount and when it is available again."""
    reason = reply[1]
    if reason == "conversation":
        return ConversationCapReached(
            f"This conversation has reached its cap of {offered.conversation_tokens_max} tokens; begin a new one."
        )
    if reason == "conversation input" and offered.conversation_input_tokens_max is not None:
        return ConversationCapReached(
            f"This conversation may be sent {reply[2]} input tokens in all; begin a new one with a shorter prompt."
        )
    reset_s = max(0, facts.period_end - now_ms) // 1000
    if _is_uncounted(reason, offered):
        return InsufficientQuota(
            f"With this call more than {MOST} would be counted, which is the most there can be; "
            f"the next period starts in {duration(reset_s)}."
        )
    if reason == "period":
        headers = {
            "x-ratelimit-limit-tokens": str(offered.period_tokens_max),
            "x-ratelimit-remaining-tokens": reply[2],
            "x-ratelimit-reset-tokens": duration(reset_s),
        }
        return InsufficientQuota(
            f"The period's {offered.period_tokens_max} tokens do not allow this call: {reply[2]} are left; "
            f"the next period starts in {duration(reset_s)}.",
            headers,
        )
    if reason == "end user":
        subject = "This end user" if facts.end_user else "All calls that name no end user together"
        return EndUserQuotaReached(
            f"{subject} may have {offered.end_user_period_tokens_max} tokens a period, which do not allow this call: "
            f"{reply[2]} are left; the next period starts in {duration(reset_s)}.",
            param="user",
        )
    if reason == "spend":
        return InsufficientQuota(
            f"The period's spend limit of {offered.spend_nanousd_max} nano-{facts.currency} does not allow this call: "
            f"{reply[2]} are left; the next period starts in {duration(reset_s)}."
        )
    if reason == "concurrency":
        return RateLimitExceeded(f"At most {offered.concurrency_max} calls may run at once.", retry_after_s=1)
    if reason == "rate":
        wait_s = -(-int(reply[2]) // 1_000_000)
        return RateLimitExceeded(f"At most {offered.requests_per_minute} requests a minute are admitted.", wait_s)
    if reason == "breach":
        return AccountInconsistent(
            "What this account has used and holds does not add up, so it is not served until that is mended; "
            "nothing was charged."
        )
    if reason == "full":
        return MeteringUnavailable("Redis is nearly full, so no more calls are admitted; nothing was charged.")
    if reason == "backlog":
        return MeteringUnavailable("The ledger takes no records, so no more calls are admitted; nothing was charged.")
    return MeteringUnavailable()


def _is_uncounted(reason: str, offered: Offer) -> bool:
    """Return whether the reached limit is the most that can be counted, not a limit that was set."""
    limits = {
        "conversation input": offered.conversation_input_tokens_max,
        "period": offered.period_tokens_max,
        "spend": offered.spend_nanousd_max,
    }
    return reason in limits and limits[reason] is None


def duration(seconds: int) -> str:
    """Return a duration as rate-limit headers write it: ``1h2m3s``."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"
