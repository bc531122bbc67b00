"""Tighter multipliers where the direct ones leave a gap: two players who answer each other's average play."""

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
"""How many rounds are played at most, and how many products all rounds together may take."""

PRIOR = 4
"""How many rounds the play at the start counts for."""

DUST = 1e-9
"""A weight too small to be passed on."""


def tightened(valuation: Valuation, full: Allocation, start: Multipliers) -> Iterator[Entry]:
    """Return multipliers whose bound is at most that of ``start``, but for the dust left out of them.

    The least bound is the value of a game. One player sets the multipliers; the other, for each type k, the cap that
    makes its bracket largest. In each round both answer the average of what the other has done so far, and the averages
    approach the value. Against given caps the best multipliers send the weight of each type along the path to more
    urgent types that is worth the most, an arc from l to k being worth (u_l - u_k)(N_k). Both begin with what is
    known: ``start``, and the caps of the full menu.

    Args:
        valuation: n types, m steps. A round takes n x n x m products, so large markets play few rounds or none.
        full: the full menu.
        start: multipliers to begin with.
    """
    types, steps = len(valuation.share), len(valuation.steps.tokens)
    rows, share = np.arange(types), valuation.share
    flow = np.zeros((types, types))
    np.add.at(flow, (start.patient, start.urgent), start.flow)
    kept, tightest = flow, np.inf
    rounds = min(ROUNDS_MOST, PRODUCTS // (types * types * steps))
    if rounds:
        worth, cost = _tables(valuation)
        played = np.zeros_like(worth)
        played[rows, full.caps] = 1.0
    for turn in range(rounds):
        brackets = (share + flow.sum(axis=0))[:, None] * worth - flow.T @ worth - cost
        caps = brackets.argmax(axis=1)
        bound = float(brackets[rows, caps].sum())
        if bound < tightest:
            kept, tightest = flow, bound
        if bound <= full.profit * (1 + ENOUGH):
            break
        part = 1 / (PRIOR + turn + 1)
        played *= 1 - part
        played[rows, caps] += part
        expected = played @ worth.T
        flow = (1 - part) * flow + part * _answer(
            expected.T - np.diag(expected), share * (1 - valuation.surplus_weight)
        )
    for patient, urgent in np.argwhere(kept > DUST).tolist():
        yield patient, urgent, float(kept[patient, urgent])


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
    onward, following = np.zeros(types), np.full(types, -1)
    for row in range(types - 2, -1, -1):
        values = arcs[row, row + 1 :] + onward[row + 1 :]
        place = int(values.argmax())
        if values[place] > 0:
            onward[row], following[row] = values[place], row + 1 + place
    flow, held = np.zeros((types, types)), share.copy()
    for row in np.flatnonzero(following >= 0).tolist():
        flow[row, following[row]] = held[row]
        held[following[row]] += held[row]
    return flow
