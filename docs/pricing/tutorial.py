"""The pricing library from a known market to one learnt from records: `python docs/pricing/tutorial.py` draws the pictures anew."""

from __future__ import annotations

import gzip
import json
import math
import sys
from itertools import pairwise
from pathlib import Path

import pricing

HERE = Path(__file__).parent
TOKENS = range(20, 6_001, 20)


def truth() -> pricing.Market:
    """Return the market that the sample records were drawn from: three kinds of customers, lognormal answers."""
    reached = [0.0, *(0.5 * (1 + math.erf(math.log(tokens / 400) / 0.8 / math.sqrt(2))) for tokens in TOKENS)]
    chances = [after - before for before, after in pairwise(reached)]
    return pricing.Market(
        types=[(0.01, 0.3), (0.05, 0.4), (0.15, 0.3)],
        lengths={tokens: chance / reached[-1] for tokens, chance in zip(TOKENS, chances, strict=True)},
        tokens_per_s=50,
        first_token_s=0.38,
        value_nanousd=1_000_000_000,
    )


def fitted() -> pricing.Fit:
    """Return the market as 3,000 conversations tell it, in one call; what an answer is worth is the operator's to say."""
    with gzip.open(HERE / "usage.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    offered = json.loads((HERE / "offered.json").read_text("utf-8"))
    return pricing.fit(records, [offered], value_nanousd=1_000_000_000, draws=8)


def main(out: Path = HERE) -> dict[str, object]:
    """Work through the tutorial, leave the pictures in a folder, and return what was made."""
    market = truth()
    print(market.summary(), end="\n\n")

    # The most profitable menu of three tiers, its certificate, and where it would earn less than one plan.
    menu = pricing.optimal_menu(market, tiers=3)
    print(menu.summary(), end="\n\n")
    assert menu.verify().ok
    for line in menu.sensitivity():
        print(f"{line.thing}: pays from {line.below or -0.5:+.1%} to {line.above or 0.5:+.1%}")

    # The same market where all of this may be a little wrong.
    robust = pricing.optimal_menu(market, tiers=3, robust=True)
    print("", robust.summary(), "", sep="\n")

    # What customers did tells the market; the menu for it is robust unasked, of as many tiers as the estimate bears.
    learnt = fitted()
    print(learnt.summary(), end="\n\n")
    sold = pricing.optimal_menu(learnt)
    print(sold.summary())

    drawn = {"worth": market, "menu": menu, "robust": robust, "urgency": learnt, "learnt": sold}
    for name, shown in drawn.items():
        (out / f"{name}.svg").write_text(shown.plot(), "utf-8")
    (out / "lengths.svg").write_text(learnt.plot("lengths"), "utf-8")
    return dict(drawn)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
