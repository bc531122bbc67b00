"""The distribution of urgency behind each customer's observed behaviour, drawn from its posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import expit, gammaln, log_expit

from pricing.estimate.laws.grouped_customers import Chosen, Rows
from pricing.estimate.laws.sampling import FULL, Sweeps, disagreement
from pricing.estimate.observations.conversations import CannotEstimate
from pricing.market.answers import Floats, Ints

Bools = npt.NDArray[np.bool_]

STEP = 0.01
"""Neighbours on the grid of urgencies differ by this share, or by less."""

IN_CELL = 6
"""The fewest grid points, and kinds of customers, in each cell between thresholds."""

KINDS = 30
"""The fewest kinds of customers that a market may have: the truncation of the Dirichlet process."""

CONCENTRATIONS = np.array([0.1, 0.3, 1.0, 3.0, 10.0])
"""Concentrations of the Dirichlet process, which set how readily it opens another kind; the chain samples among them."""

REGROUPED = 3
"""Proposals per sweep to join two kinds or split a kind ..."""

APART = (float(np.log(0.02)), float(np.log(2.0)))
"""... into two kinds whose urgencies differ in logarithms by 0.02 to 2; this is the range of the logarithm of that
difference."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """The distribution of urgency over conversations.

    Attributes:
        urgency_per_s: grid, rising. 1/s, shape (n,).
        share: posterior mean of the share of each urgency, for which menus are made. Shape (n,).
        draws: draws of these shares from the posterior. Shape (draws, n).
        by_reading: the posterior mean under each reading of the choices. Shape (readings, n).
        rows: the number of rows in the likelihood.
        apart: disagreement of the chains: Gelman and Rubin's ratio for the mean of ln r, 1 at best. With many
            readings it compares the halves of each reading's chain.
    """

    urgency_per_s: Floats
    share: Floats
    draws: Floats
    by_reading: Floats
    rows: int
    apart: float

    def of_reading(self, draw: int) -> Floats:
        """Return the posterior mean under the reading of a draw. Shape (n,)."""
        reading: Floats = self.by_reading[draw % len(self.by_reading)]
        return reading


def estimate_mixing(
    rows: Rows, chosen: Chosen, *, draws: int, random: np.random.Generator, sweeps: Sweeps = FULL
) -> Mixing:
    """Return the distribution of urgency where the thresholds between tiers, if any, are known."""
    return mixing_of([(rows, chosen)], draws=draws, random=random, sweeps=sweeps)


def mixing_of(
    readings: Sequence[tuple[Rows, Chosen]], *, draws: int, random: np.random.Generator, sweeps: Sweeps = FULL
) -> Mixing:
    """Return the distribution of urgency, weighted by conversations, with draws from its posterior.

    The prior is a Dirichlet process over a log-uniform law of urgency; the posterior is sampled by blocked Gibbs
    sampling (Ishwaran and James 2001, with a finite Dirichlet in place of the broken stick). For a given menu, profit
    is linear in the distribution, so the menu that is best on average is the best menu of the posterior mean. Atoms
    stay sharp where data are plentiful, and are as wide as their uncertainty where data are few.

    Identifying assumptions: customers leave at the rate r at which they discount; for choices of tiers, see
    ``choices``. Not identified: how mass is spread far below 1 / a customer's seconds or above 1 / its shortest waits,
    where only the total is known; and how mass is spread within an interval where only choices were observed.

    Args:
        readings: customers, and choices of single conversations: once, or as read under each of several draws of the
            lengths and pace that set the thresholds between tiers. Readings are equally likely; each has its own chain.
        draws: the number of draws; draw k belongs to reading k modulo the number of readings.
        random: the source of randomness.
        sweeps: how long the sampler runs.

    Raises:
        CannotEstimate: there are no data.
    """
    if not any(len(rows.customers) + len(chosen.conversations) for rows, chosen in readings):
        raise CannotEstimate("Nobody was seen to leave, wait or choose.")
    grid = _grid(readings[0][0], np.unique(np.concatenate([_thresholds(*reading) for reading in readings])))
    chains, burnt, counted = sweeps.of(len(readings), max(len(rows.customers) for rows, _ in readings))
    traces = np.empty((len(readings), chains, counted))
    by_reading = np.zeros((len(readings), len(grid)))
    drawn = np.empty((draws, len(grid)))
    for number, (rows, chosen) in enumerate(readings):
        sampler = _Sampler(rows, chosen, grid, random)
        draw_numbers = range(number, draws, len(readings))
        interval = max(1, chains * counted // max(1, len(draw_numbers)))
        pending = iter(draw_numbers)
        for chain in range(chains):
            sampler.begin(1 + (number + chain) % sweeps.chains)
            for sweep in range(burnt + counted):
                sampler.sweep()
                if sweep < burnt:
                    continue
                by_reading[number] += sampler.expected()
                distribution = sampler.drawn()
                traces[number, chain, sweep - burnt] = float(distribution @ sampler.log_grid)
                if (chain * counted + sweep - burnt) % interval == 0 and (place := next(pending, None)) is not None:
                    drawn[place] = distribution
        for place in pending:
            sampler.sweep()
            drawn[place] = sampler.drawn()
    by_reading /= by_reading.sum(axis=1, keepdims=True)
    if chains == 1:
        traces = traces.reshape(len(readings), 2, -1)
    return Mixing(grid, by_reading.mean(axis=0), drawn, by_reading, len(readings[0][0].customers), disagreement(traces))


class _Sampler:
    """A Markov chain over markets of finitely many kinds of customers, each with an urgency on the grid.

    Thresholds divide the grid into cells, and a kind keeps its cell, so that the number of choices of an interval can
    move the mass of its cells as a whole. A Dirichlet process restricted to a cell is again a Dirichlet process,
    independent of those in other cells.
    """

    def __init__(self, rows: Rows, chosen: Chosen, grid: Floats, random: np.random.Generator) -> None:
        self.random = random
        self.rows, self.chosen = rows, chosen
        edges = _thresholds(rows, chosen)
        self.grid = grid
        self.log_grid = np.log(self.grid)
        cell_of_point = np.searchsorted(edges, self.grid, side="left")
        self.ends = np.searchsorted(cell_of_point, np.arange(len(edges) + 2))
        base = np.gradient(self.log_grid)
        self.log_base = np.log(base / base.sum())
        believed = np.add.reduceat(base / base.sum(), self.ends[:-1])
        number = np.maximum(IN_CELL, np.ceil(KINDS * believed)).astype(np.int64)
        self.cell = np.repeat(np.arange(len(number)), number)
        self.alphas = np.multiply.outer(CONCENTRATIONS, (believed / number)[self.cell])[:, None, :]
        self.log_gamma = gammaln(self.alphas)
        self.strata = np.arange(int(rows.stratum.max(initial=0)) + 1)
        self.member = (rows.stratum == self.strata[:, None]).astype(np.float64)
        self.each = rows.conversations / np.maximum(rows.customers, 1)
        lowest, highest = np.searchsorted(edges, rows.low, side="right"), np.searchsorted(edges, rows.high, side="left")
        lowest = np.where(rows.low > 0, lowest, 0)
        inside = (self.cell >= lowest[:, None]) & (self.cell <= highest[:, None])
        self.allowed = np.where(inside, 0.0, -np.inf)
        first = np.where(chosen.low > 0, np.searchsorted(edges, chosen.low, side="right"), 0)
        last = np.searchsorted(edges, chosen.high, side="left")
        cells = np.arange(len(number))
        self.covers = (cells >= first[:, None]) & (cells <= last[:, None])
        self.starts = np.searchsorted(self.cell, cells)
        self.kinds_of = [np.flatnonzero(self.cell == cell) for cell in cells]
        self.points_of = [slice(*ends) for ends in pairwise(self.ends)]
        self.base_of = [np.exp(self.log_base[points]).sum() for points in self.points_of]
        self.prior_of = [np.exp(self.log_base[points] - self.log_base[points].max()) for points in self.points_of]
        self.everybody = bool(inside.all())

    def begin(self, kinds: int) -> None:
        """Start with ``kinds`` kinds in each cell, spread evenly over the customers whose own rates lie in the cell.

        Too few kinds split quickly, because splits are likely to be accepted; too many kinds take long to join.
        """
        number = len(self.cell)
        self.place = self.random.integers(self.ends[self.cell], self.ends[self.cell + 1])
        weight = np.full(number, 1e-6)
        seen = self.rows.waited_s > 0
        rates = (self.rows.disconnects[seen] + 0.5) / self.rows.waited_s[seen]
        near = np.searchsorted(self.grid, rates)
        for cell in range(len(self.ends) - 1):
            own = self.kinds_of[cell][:kinds]
            here = near[(near >= self.ends[cell]) & (near < self.ends[cell + 1])]
            if len(here):
                self.place[own] = np.quantile(here, (np.arange(len(own)) + 0.5) / len(own), method="nearest")
            weight[own] = 1.0
        self.alpha = self.alphas[0, 0]
        self.factor = np.ones(len(self.rows.left_in))
        self.waited_s = self.rows.waited_s
        self.log_weight = np.tile(np.log(weight / weight.sum()), (len(self.strata), 1))

    def sweep(self) -> None:
        """Draw the kind of each customer, then the kinds' weights, their urgencies, and the factors of earlier windows."""
        rows = self.rows
        rate, log_rate = self.grid[self.place], self.log_grid[self.place]
        chance = np.multiply.outer(rows.disconnects, log_rate)
        chance -= np.multiply.outer(self.waited_s, rate)
        if not self.everybody:
            chance += self.allowed
        chance += self.log_weight[rows.stratum] if len(self.strata) > 1 else self.log_weight
        chance -= chance.max(axis=1, keepdims=True)
        np.exp(chance, out=chance)
        chance /= chance.sum(axis=1, keepdims=True)
        counts = self.random.multinomial(rows.customers, chance).astype(np.float64)
        is_used = np.array(counts.any(axis=0))
        for _ in range(REGROUPED):
            self._regroup(counts, is_used)
        self._weigh(self.member @ counts, self.member @ (counts * self.each[:, None]))
        self._place(rows.disconnects @ counts, self.waited_s @ counts)
        if len(self.factor) > 1:
            self._change(counts @ self.grid[self.place])

    def _regroup(self, counts: Floats, is_used: Bools) -> None:
        """Split a kind in two, or join two kinds, if a Metropolis step accepts it.

        ``counts`` and ``is_used`` are changed in place.

        Moves of single customers seldom empty a kind into a similar kind, so without this step too many kinds would
        survive. A kind is split by the odds of two urgencies on either side of its own, at a random distance and with
        random weights; a join is weighed against the probability of the split that would reverse it.
        """
        kinds = self.kinds_of[self.random.integers(len(self.kinds_of))]
        used, free = kinds[is_used[kinds]], kinds[~is_used[kinds]]
        splits = self.random.random() < 0.5
        if len(used) < (1 if splits else 2) or (splits and len(free) == 0):
            return
        kind = self._one_of(used)
        other = self._one_of(free if splits else used[used != kind])
        joint = counts[:, kind] + counts[:, other]
        rows = np.flatnonzero(joint)
        joint, disconnects, waited = joint[rows], self.rows.disconnects[rows], self.waited_s[rows]
        if waited @ joint <= 0:
            return
        distance = np.exp(self.random.uniform(*APART))
        fraction = self.random.random()
        middle = np.log((disconnects @ joint + 0.5) / (waited @ joint))
        patient, urgent = middle - (1 - fraction) * distance, middle + fraction * distance
        if self.random.random() < 0.5:
            patient, urgent = urgent, patient
        odds = np.log(fraction / (1 - fraction)) * np.sign(urgent - patient)
        odds = odds + disconnects * (patient - urgent) - waited * (np.exp(patient) - np.exp(urgent))
        stays = self.random.binomial(joint.astype(np.int64), expit(odds)) if splits else counts[rows, kind]
        moves = joint - stays
        if splits and not (stays.any() and moves.any()):
            return
        proposed = float(stays @ log_expit(odds) + moves @ log_expit(-odds))
        member, alpha = self.member[:, rows], self.alpha[kind]
        weights = gammaln(member @ stays + alpha) + gammaln(member @ moves + alpha)
        weights -= gammaln(member @ joint + alpha) + gammaln(alpha)
        gain = float(weights.sum()) - proposed
        groups = (stays, moves, joint)
        evidence = self._evidence(
            self.cell[kind],
            np.array([disconnects @ group for group in groups]),
            np.array([waited @ group for group in groups]),
        )
        gain += evidence[0] + evidence[1] - evidence[2]
        number = len(used) if splits else len(used) - 1
        gain += np.log((len(kinds) - number) / (number + 1))
        if np.log(self.random.random()) < (gain if splits else -gain):
            counts[rows, kind], counts[rows, other] = (stays, moves) if splits else (joint, 0.0)
            is_used[other] = splits

    def _evidence(self, cell: int, disconnects: Floats, waited_s: Floats) -> Floats:
        """Return the log of the likelihood of each kind's customers, averaged over the kind's possible urgencies."""
        logs, highest = self._logs(cell, disconnects, waited_s)
        evidence: Floats = highest + np.log(np.exp(logs, out=logs).sum(axis=1) / self.base_of[cell])
        return evidence

    def _logs(self, cell: int, disconnects: Floats, waited_s: Floats) -> tuple[Floats, Floats]:
        """Return each kind's log likelihood times prior at the points of a cell, less its maximum, and the maximum.

        Shapes (kinds, points), (kinds,).
        """
        points = self.points_of[cell]
        logs = disconnects[:, None] * self.log_grid[points]
        logs -= waited_s[:, None] * self.grid[points]
        logs += self.log_base[points]
        highest: Floats = logs.max(axis=1)
        logs -= highest[:, None]
        return logs, highest

    def _one_of(self, places: Ints) -> int:
        return int(places[self.random.integers(len(places))])

    def _concentrate(self, customers: Floats) -> None:
        """Draw the concentration of the process, given the number of customers of each kind. Shape (strata, kinds)."""
        logs = (gammaln(customers + self.alphas) - self.log_gamma).sum(axis=(1, 2))
        of_all = CONCENTRATIONS[:, None]
        logs += (gammaln(of_all) - gammaln(of_all + customers.sum(axis=1))).sum(axis=1)
        reached = np.cumsum(np.exp(logs - logs.max()))
        self.alpha = self.alphas[np.searchsorted(reached / reached[-1], self.random.random(), side="right"), 0]

    def _weigh(self, customers: Floats, conversations: Floats) -> None:
        """Draw the weights of the kinds in each stratum, and their shares of all conversations. Shapes (strata, kinds)."""
        self._concentrate(customers)
        weight = self.random.standard_gamma(customers + self.alpha)
        usual = conversations.sum(axis=1, keepdims=True) / np.maximum(customers.sum(axis=1, keepdims=True), 1)
        usual = np.where(usual > 0, usual, 1.0)
        each = np.where(customers > 0, conversations / np.maximum(customers, 1), usual)
        if len(self.chosen.conversations):
            weight = self._tilted(weight, customers)
        with np.errstate(divide="ignore"):
            self.log_weight = np.log(weight / weight.sum(axis=1, keepdims=True))
        share = (weight * each).sum(axis=0)
        self.share = share / share.sum()

    def _tilted(self, weight: Floats, customers: Floats) -> Floats:
        """Return weights whose sums over cells also follow the choices of conversations.

        If there are customers, the choices leave the total of all cells that could be chosen unchanged.
        """
        by_cell = self._cells(weight)
        volume = self.rows.conversations @ self.member.T if len(self.rows.customers) else np.ones(1)
        mass = volume[:, None] * by_cell / by_cell.sum(axis=1, keepdims=True)
        chance = np.where(self.covers, mass.sum(axis=0) + 1e-300, 0.0)
        fell = self.random.multinomial(self.chosen.conversations, chance / chance.sum(axis=1, keepdims=True)).sum(
            axis=0
        )
        among = (mass + 1e-300) / (mass + 1e-300).sum(axis=0)
        chose = self.random.multinomial(fell, among.T).T
        drawn = self.random.standard_gamma(self._cells(customers + self.alpha) + chose)
        covered = self.covers.any(axis=0)
        if len(self.rows.customers):
            drawn *= by_cell[:, covered].sum(axis=1, keepdims=True) / drawn[:, covered].sum(axis=1, keepdims=True)
        drawn = np.where(covered, drawn, by_cell)
        # The weights of a cell without customers may all underflow to 0; then its kinds get equal weights.
        empty = by_cell[:, self.cell] <= 1e-290
        weight = np.where(empty, 1.0, weight)
        return weight / self._cells(weight)[:, self.cell] * drawn[:, self.cell]

    def _cells(self, values: Floats) -> Floats:
        return np.add.reduceat(values, self.starts, axis=1)

    def _place(self, disconnects: Floats, waited_s: Floats) -> None:
        """Draw each kind's urgency given its customers' behaviour, or from the prior without any. Shapes (kinds,)."""
        self.near = []
        for cell, (kinds, points) in enumerate(zip(self.kinds_of, self.points_of, strict=True)):
            drawn = self.random.random(len(kinds))
            reached = np.cumsum(self.prior_of[cell])
            self.place[kinds] = points.start + np.searchsorted(reached, drawn * reached[-1])
            used = np.flatnonzero((disconnects[kinds] > 0) | (waited_s[kinds] > 0))
            logs, _ = self._logs(cell, disconnects[kinds[used]], waited_s[kinds[used]])
            reached = np.cumsum(np.exp(logs, out=logs), axis=1)
            self.place[kinds[used]] = points.start + (reached < drawn[used, None] * reached[:, -1:]).sum(axis=1)
            self.near.append((used, logs))

    def _change(self, rate_per_s: Floats) -> None:
        """Draw the factor by which customers were more urgent in each window than in the last window.

        A wait in a window counts as that many times as long. The prior of each factor is log-uniform. ``rate_per_s`` is
        the sum of the rates of all customers of a row. Shape (rows,).
        """
        expected = rate_per_s @ self.rows.waited_in_s
        drawn = self.random.standard_gamma(self.rows.left_in) / np.maximum(expected, 1e-300)
        self.factor = np.where(self.rows.left_in > 0, drawn, 1.0)
        self.factor[-1] = 1.0
        self.waited_s = self.rows.waited_in_s @ self.factor

    def expected(self) -> Floats:
        """Return the distribution given the kinds of the customers, averaged over the kinds' urgencies. Shape (n,)."""
        pieces = []
        for kinds, (used, near), prior in zip(self.kinds_of, self.near, self.prior_of, strict=True):
            share = self.share[kinds]
            unused = (share.sum() - share[used].sum()) * prior / prior.sum()
            pieces.append(unused + (share[used] / near.sum(axis=1)) @ near)
        return np.concatenate(pieces)

    def drawn(self) -> Floats:
        """Return the distribution as drawn. Shape (n,)."""
        drawn: Floats = np.bincount(self.place, self.share, len(self.grid)).astype(np.float64)
        return drawn


def _thresholds(rows: Rows, chosen: Chosen) -> Floats:
    edges = np.unique(np.concatenate((rows.low, rows.high, chosen.low, chosen.high)))
    return edges[(edges > 0) & np.isfinite(edges)]


def _grid(rows: Rows, edges: Floats) -> Floats:
    """Return rates across all urgencies that the rows can distinguish, evenly in logarithms between the thresholds."""
    has_waited = rows.waited_s > 0
    rates = (rows.disconnects[has_waited] + 0.5) / rows.waited_s[has_waited]
    lows = [float(np.min(0.1 / rows.waited_s[has_waited])) if has_waited.any() else np.inf, *(edges / 10)]
    if has_waited.any():
        lows.append(0.1 * (float(rows.disconnects @ rows.customers) + 0.5) / float(rows.waited_s @ rows.customers))
    highs = [float(rates.max()) * 3 if has_waited.any() else 0.0, *(edges * 4)]
    low, high = min(lows), max(highs)
    if not 0 < low < high < np.inf:
        raise CannotEstimate("Nothing that was seen tells one urgency from another.")
    ends = np.concatenate(([low], edges[(edges > low) & (edges < high)], [high]))
    points = [max(IN_CELL, int(np.ceil(np.log(after / before) / STEP))) for before, after in pairwise(ends)]
    # The ends are inserted exactly, because a rounded grid point could lie on the wrong side of its threshold.
    pieces = [np.geomspace(a, b, number + 1)[1:-1] for (a, b), number in zip(pairwise(ends), points, strict=True)]
    return np.unique(np.concatenate((ends, *pieces)))
