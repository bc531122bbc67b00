"""Tighter multipliers where the direct multipliers leave a gap, by a game of two players with fictitious play."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pricing.bounds.bound import Entry, Multipliers
from pricing.market.answers import Floats
from pricing.market.worth import Valuation
from pricing.mechanism.mechanism import Allocation

ENOUGH = 1e-4
"""A relative gap below which the players stop."""

ROUNDS_MOST, PRODUCTS = 200, 10**9
"""The most rounds, and the most products of numbers that all rounds together may compute."""

PRIOR = 4
"""The number of rounds as which the initial play counts in the averages."""

DUST = 1e-9
"""A weight at most this large is left out."""


def tightened(valuation: Valuation, full: Allocation, start: Multipliers) -> Iterator[Entry]:
    """Yield multipliers whose bound is at most the bound of ``start``, except for the weights up to ``DUST`` left out.

    The least bound is the value of a game. One player sets the multipliers; the other sets, for each type k, the cap
    that makes the type's bracket largest. In each round each player answers the other's average play so far, and the
    averages approach the value. Against fixed caps the best multipliers send the weight of each type along the path to
    more urgent types that is worth the most; an arc from l to k is worth (u_l - u_k)(N_k). The first plays are
    ``start`` and the caps of the full menu.

    Args:
        valuation: n types, m steps. A round takes n x n x m products, so large markets play few rounds or none.
        full: the full menu.
        start: the initial multipliers.
    """
    types, steps = len(valuation.share), len(valuation.steps.tokens)
    rows, share = np.arange(types), valuation.share
    flow = np.zeros((types, types))
    np.add.at(flow, (start.patient, start.urgent), start.flow)
    best_flow, tightest = flow, np.inf
    rounds = min(ROUNDS_MOST, PRODUCTS // (types * types * steps))
    if rounds:
        worth, cost = _tables(valuation)
        played = np.zeros_like(worth)
        played[rows, full.caps] = 1.0
    for round_number in range(rounds):
        brackets = (share + flow.sum(axis=0))[:, None] * worth - flow.T @ worth - cost
        caps = brackets.argmax(axis=1)
        bound = float(brackets[rows, caps].sum())
        if bound < tightest:
            best_flow, tightest = flow, bound
        if bound <= full.profit * (1 + ENOUGH):
            break
        step = 1 / (PRIOR + round_number + 1)
        played *= 1 - step
        played[rows, caps] += step
        expected = played @ worth.T
        flow = (1 - step) * flow + step * _answer(
            expected.T - np.diag(expected), share * (1 - valuation.surplus_weight)
        )
    for patient, urgent in np.argwhere(best_flow > DUST).tolist():
        yield patient, urgent, float(best_flow[patient, urgent])


def _tables(valuation: Valuation) -> tuple[Floats, Floats]:
    """Return worth u_i(N) and cost q_i C_i(N) for N = 0, 1, ..., m. Nano-units, shapes (n, m + 1)."""
    left = valuation.left(slice(None))
    worth = np.zeros((len(left), left.shape[1] + 1))
    cost = np.zeros_like(worth)
    np.cumsum(valuation.gains(slice(None), left), axis=1, out=worth[:, 1:])
    np.cumsum(valuation.served(left), axis=1, out=cost[:, 1:])
    cost *= valuation.share[:, None] * valuation.cost_per_token
    return worth, cost


def _answer(arcs: Floats, share: Floats) -> Floats:
    """Return the flow that sends each type's share along its most valuable path. Shapes (n, n), (n,) -> (n, n)."""
    types = len(share)
    best_value, next_type = np.zeros(types), np.full(types, -1)
    for row in range(types - 2, -1, -1):
        values = arcs[row, row + 1 :] + best_value[row + 1 :]
        offset = int(values.argmax())
        if values[offset] > 0:
            best_value[row], next_type[row] = values[offset], row + 1 + offset
    flow, weight = np.zeros((types, types)), share.copy()
    for row in np.flatnonzero(next_type >= 0).tolist():
        flow[row, next_type[row]] = weight[row]
        weight[next_type[row]] += weight[row]
    return flow
