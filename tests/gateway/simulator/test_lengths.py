"""The law of an answer's length is the one the contract states."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from gateway.simulator.lengths import Exponential, Table

QUANTILES = [(index + 0.5) / 200_000 for index in range(200_000)]


@pytest.mark.parametrize("mean", [0.4, 1.0, 7.5, 300.0])
def test_exponential_lengths_have_the_stated_probabilities(mean: float) -> None:
    """Over equally spaced quantiles the share of each length n is e^(-(n-1)/m) - e^(-n/m)."""
    lengths = Counter(Exponential(mean).length(u) for u in QUANTILES)

    assert min(lengths) == 1
    for n in range(1, int(10 * mean) + 2):
        expected = math.exp(-(n - 1) / mean) - math.exp(-n / mean)
        assert lengths[n] / len(QUANTILES) == pytest.approx(expected, abs=1.01 / len(QUANTILES))


def test_table_lengths_have_the_stated_probabilities_and_the_rest_never_finishes() -> None:
    """A table gives each of its lengths as often as it says, and None for what is missing to 1."""
    lengths = Counter(Table((3, 10, 40), (0.25, 0.0, 0.5)).length(u) for u in QUANTILES)

    assert lengths == {3: 50_000, 40: 100_000, None: 50_000}


def test_a_table_that_sums_to_one_but_for_rounding_always_finishes() -> None:
    """Ten times 0.1 is a little less than 1 in doubles, which is no reason for an endless answer."""
    table = Table(tuple(range(1, 11)), (0.1,) * 10)

    assert table.length(math.nextafter(1.0, 0.0)) == 10


@pytest.mark.parametrize(
    ("tokens", "probability"),
    [((), ()), ((1, 2), (1.0,)), ((2, 2), (0.5, 0.5)), ((0, 2), (0.5, 0.5)), ((1, 2), (0.9, 0.2)), ((1,), (-0.1,))],
)
def test_a_table_that_is_no_distribution_is_refused(tokens: tuple[int, ...], probability: tuple[float, ...]) -> None:
    """Lengths rise from 1 and probabilities are neither negative nor above 1 in sum."""
    with pytest.raises(ValueError, match="table"):
        Table(tokens, probability)


@pytest.mark.parametrize("mean", [0.0, -1.0, math.inf, math.nan])
def test_a_mean_that_is_no_positive_number_is_refused(mean: float) -> None:
    """The exponential law needs a positive, finite mean."""
    with pytest.raises(ValueError, match="mean_tokens"):
        Exponential(mean)
