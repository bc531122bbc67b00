"""The law of lengths when caps cut long answers, compared with SciPy, with known truths and with the naive estimate."""

from __future__ import annotations

import numpy as np
import pytest

from pricing.estimate.laws.length import estimate_length, kaplan_meier, log_rank
from pricing.estimate.laws.pace import estimate_pace
from pricing.estimate.observations.conversations import CannotEstimate, Ending, ending_of
from pricing.estimate.observations.statistics import LengthCounts, pace_counts
from pricing.market.answers import Ints
from tests.pricing.estimate.simulated import counted


def cut(lengths: Ints, cap: int, tier: str = "t1") -> LengthCounts:
    return counted(tier, cap, np.minimum(lengths, cap), lengths < cap)


def exponential(random: np.random.Generator, conversations: int, mean: float = 300) -> Ints:
    return np.ceil(random.exponential(mean, conversations)).astype(np.int64)


@pytest.mark.parametrize(
    ("finish", "billed", "cap", "ending"),
    [
        ("complete", 99, 100, Ending.OBSERVED),
        ("complete", 99, None, Ending.OBSERVED),
        ("complete", 100, 100, Ending.CENSORED),
        ("tool_calls", 50, 100, Ending.OPEN),
        *((finish, 50, 100, Ending.CENSORED) for finish in ("cap", "caller_limit", "period", "context", "disconnect")),
        *((finish, 50, None, Ending.CENSORED) for finish in ("filtered", "upstream_error", "shutdown", "recovered")),
    ],
)
def test_an_answer_is_observed_only_if_it_ended_by_itself_below_its_cap(
    finish: str, billed: int, cap: int | None, ending: Ending
) -> None:
    assert ending_of(finish, billed, cap) is ending


def test_a_finish_nobody_knows_is_refused() -> None:
    with pytest.raises(CannotEstimate, match="'vanished' is not known"):
        ending_of("vanished", 1, None)


def test_the_curve_and_its_band_are_scipys() -> None:
    """SciPy's empirical distribution of right-censored data is an outside witness, including ties."""
    from scipy import stats  # only in two tests: it takes longer to load than everything else

    random = np.random.default_rng(1)
    lengths, limits = random.integers(1, 80, 400), random.integers(1, 120, 400)
    seen, ended = np.minimum(lengths, limits), lengths <= limits
    counts = counted("t1", None, seen, ended)
    theirs = stats.ecdf(stats.CensoredData.right_censored(seen, ~ended)).sf
    with pytest.warns(RuntimeWarning, match="undefined at some observations"):
        band = theirs.confidence_interval(method="log-log")

    ours = kaplan_meier(counts.tokens, counts.observed, counts.censored)

    grid = np.arange(1, ours.tokens[-1])
    np.testing.assert_allclose(ours.at(grid), theirs.evaluate(grid), atol=1e-12)
    inside = (ours.at(grid) > 0) & (ours.at(grid) < 1)
    for own, scipys in zip(ours.band_at(grid), (band.low, band.high), strict=True):
        np.testing.assert_allclose(own[inside], scipys.evaluate(grid)[inside], atol=1e-9)


def test_the_comparison_of_two_tiers_is_scipys_log_rank_test() -> None:
    from scipy import stats

    random = np.random.default_rng(2)
    one, two = exponential(random, 150), exponential(random, 200, 360)
    tiers = [cut(one, 500, "a"), cut(two, 500, "b")]
    censored = [stats.CensoredData.right_censored(np.minimum(x, 500), x >= 500) for x in (one, two)]

    p_value = log_rank(tiers, below=501)

    assert p_value == pytest.approx(stats.logrank(*censored).pvalue, rel=1e-9)


def test_the_band_covers_the_truth_as_often_as_it_says() -> None:
    """Pointwise at three lengths, over 200 replications of 120 conversations, two thirds of which are cut or left."""
    random = np.random.default_rng(3)
    at = np.array([50, 150, 290])
    covered = np.zeros(3)
    for _ in range(200):
        lengths = exponential(random, 120)
        left = exponential(random, 120, 400)
        seen = np.minimum(np.minimum(lengths, left), 300)
        counts = counted("t1", 300, seen, (lengths <= left) & (lengths < 300))
        low, high = kaplan_meier(counts.tokens, counts.observed, counts.censored).band_at(at)
        covered += (low <= np.exp(-at / 300)) & (np.exp(-at / 300) <= high)

    assert np.all((covered / 200 >= 0.90) & (covered / 200 <= 0.99)), covered / 200


def test_cut_answers_taken_for_short_ones_miss_the_truth_where_caps_bind() -> None:
    """With 70 % of answers at the cap of one tier, the naive curve falls at that cap by the tier's share."""
    random = np.random.default_rng(4)
    lengths = exponential(random, 4000, 800)
    small, large = cut(lengths[:2000], 280, "small"), cut(lengths[2000:], 2000, "large")
    truth, at = np.exp(-500 / 800), np.array([500])
    everything = np.concatenate((np.minimum(lengths[:2000], 280), np.minimum(lengths[2000:], 2000)))

    estimate = estimate_length([small, large])

    assert estimate.pooled is not None
    assert abs(float(estimate.pooled.at(at)[0]) - truth) < 0.03
    assert abs(float(np.mean(everything > 500)) - truth) > 0.2


def test_answers_that_never_finish_stay_unfinished() -> None:
    random = np.random.default_rng(5)
    lengths = exponential(random, 5000, 100)
    lengths[random.random(5000) < 0.3] = 10**9

    estimate = estimate_length([cut(lengths, 2000)])

    assert estimate.pooled is not None
    assert estimate.pooled.unfinished == pytest.approx(0.3, abs=0.02)
    assert estimate.identified_to_tokens == 2000


def test_tiers_whose_callers_expect_longer_answers_are_not_pooled() -> None:
    random = np.random.default_rng(6)

    estimate = estimate_length(
        [cut(exponential(random, 800, 200), 300, "s"), cut(exponential(random, 800, 500), 900, "l")]
    )

    assert estimate.pooled is None
    assert estimate.p_value < 1e-6
    assert set(estimate.by_tier) == {"s", "l"}


def test_tiers_of_the_same_answers_are_pooled_whatever_their_caps() -> None:
    """Chance alone finds a difference about once in a hundred; three tiers, 100 replications."""
    random = np.random.default_rng(7)
    separate = 0
    for _ in range(100):
        tiers = [cut(exponential(random, 200), cap, str(cap)) for cap in (100, 300, 1000)]
        separate += estimate_length(tiers).p_value < 0.01

    assert separate <= 5


def test_too_few_endings_tell_no_curve() -> None:
    with pytest.raises(CannotEstimate, match="Only 0 answers ended"):
        estimate_length([cut(np.full(500, 1000), 300)])


def test_the_speed_is_learnt_and_impossible_clocks_are_set_aside() -> None:
    random = np.random.default_rng(8)
    tokens = random.integers(1, 900, 3000)
    ttft = np.round(random.gamma(4, 100, 3000)).astype(np.int64)
    duration = np.round(ttft + (tokens - 1) * 1000 / random.normal(50, 5, 3000)).astype(np.int64)
    ttft[:3], duration[3:5], duration[5] = -20, 0, 10**12

    pace = estimate_pace(pace_counts(ttft, duration, tokens))

    assert pace.calls == 3000 - 6
    assert abs(pace.tokens_per_s - 1 / np.mean(1 / random.normal(50, 5, 10**5))) < 4 * pace.tokens_per_s_error + 0.1
    assert abs(pace.first_token_s - (0.4 - 1 / 50)) < 4 * pace.first_token_s_error
    assert 0 < pace.tokens_per_s_error < 0.5


def test_a_handful_of_calls_does_not_tell_the_speed() -> None:
    with pytest.raises(CannotEstimate, match="3 streamed calls"):
        estimate_pace(pace_counts(np.full(3, 400), np.full(3, 900), np.full(3, 20)))
