"""The parameters of a pricing run, for the admin API and for the run's own process, which loads no FastAPI."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from gateway.admin.api.inputs import Input, TierName

Publish = Literal["no", "now", "next_period"]


class ExperimentInput(Input):
    """The experiment that a run may propose: menus for new customers, whose choices show what an answer is worth."""

    share: float = Field(default=0.2, gt=0, le=0.5, description="The share of future customers, for all arms together.")
    arms: int = Field(default=4, ge=1, le=10, description="The most menus beside the menu in force.")
    price_factor_max: float = Field(
        default=1.5, ge=1, le=10, description="No price of the menu in force is multiplied or divided by more."
    )
    cap_factor_max: float = Field(
        default=1.0, ge=1, le=10, description="No cap is multiplied or divided by more; 1 leaves caps as they are."
    )
    customers: int = Field(
        default=200, ge=1, le=1_000_000, description="The number of customers that each arm may expect."
    )


class RunInput(Input):
    """The parameters of a run. All may be omitted: `{}` makes a draft of as many tiers as are sold now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"days": 28, "publish": "no"}]})

    days: int | None = Field(
        default=None,
        ge=1,
        le=3650,
        description="How many days of conversations to use, by whole weeks; by default all.",
    )
    tiers: int | None = Field(
        default=None, ge=1, le=20, description="The most tiers; by default as many as are sold now, or 3."
    )
    value_nanousd: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="The worth of an immediate answer; by default that of the last menu's market.",
    )
    estimate_value: bool = Field(
        default=False,
        description="Whether to estimate that worth from the tiers that customers took, even if a value is set.",
    )
    lengths_may_differ: bool = Field(
        default=False,
        description="Go on even if lengths of answers vary with tier or urgency; the draft then has one tier.",
    )
    cost_nanousd_per_token: float | None = Field(
        default=None,
        ge=0,
        le=2**53,
        description="Your cost of a token; by default that of the last menu's market, or 0.",
    )
    assumed: str | None = Field(
        default=None, description="A starter market, `coding`, `chat` or `documents`, for values that no record shows."
    )
    objective: Literal["profit", "profit_if_resumed"] = Field(
        default="profit",
        description="`profit_if_resumed`: best for callers that send cut answers back and buy on. A draft that then "
        "keeps less than half of its profit is refused; a draft that keeps less than the best single plan is not "
        "published automatically.",
    )
    confidence: float = Field(
        default=0.9,
        ge=0.5,
        lt=1,
        description="The required confidence that the draft earns more than the best single plan.",
    )
    cap_factor_max: float = Field(
        default=2.0,
        ge=1,
        le=1e6,
        description="A draft that moves a cap by more than this factor is not published automatically.",
    )
    price_factor_max: float = Field(
        default=1.5,
        ge=1,
        le=1e6,
        description="A draft that moves a price by more than this factor is not published automatically.",
    )
    publish: Publish = Field(
        default="no", description="Whether a draft within these limits is put in force, and when customers get it."
    )
    moves: dict[TierName, TierName] = Field(
        default_factory=dict,
        description="As in `publish`: old tier names that the draft lacks, and the new tiers of their customers.",
    )
    without_holders: bool = Field(
        default=False, description="Set aside the few customers who hold a third or more of the conversations."
    )
    experiment: ExperimentInput | None = Field(
        default=None, description="Propose menus to try on new customers, steps away from the menu in force."
    )
    draws: int = Field(
        default=60, ge=10, le=500, description="The number of equally likely markets by which the draft is judged."
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="The seed of the draws.")
