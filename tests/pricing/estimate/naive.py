"""Naive estimators, which the others must beat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pricing.estimate.laws.grouped_customers import Rows
from pricing.estimate.observations.statistics import LengthCounts
from pricing.market.answers import Floats


def maximum_likelihood(rows: Rows, urgency_per_s: Floats, steps: int) -> Floats:
    """Return the shares of maximum likelihood, to which expectation-maximisation climbs.

    Args:
        rows: customers, each weighted by its conversations.
        urgency_per_s: grid. Shape (n,).
        steps: number of iterations.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(rows.disconnects[:, None] > 0, rows.disconnects[:, None] * np.log(urgency_per_s), 0.0)
    logs -= rows.waited_s[:, None] * urgency_per_s
    likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
    weight = rows.conversations / rows.conversations.sum()
    share = np.full(len(urgency_per_s), 1.0 / len(urgency_per_s))
    for _ in range(steps):
        share *= likelihood.T @ (weight / np.maximum(likelihood @ share, 1e-300))
    climbed: Floats = share / share.sum()
    return climbed


def cut_as_short(lengths: LengthCounts) -> LengthCounts:
    """Return counts in which every cut answer counts as a finished answer."""
    return replace(lengths, observed=lengths.observed + lengths.censored, censored=np.zeros_like(lengths.censored))


def by_heads(rows: Rows) -> Rows:
    """Return rows in which every customer counts as one conversation."""
    return replace(rows, conversations=rows.customers.astype(np.float64))
