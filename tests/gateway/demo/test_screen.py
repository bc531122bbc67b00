"""The demo's live summary adds up and stays readable."""

from __future__ import annotations

from gateway.demo.screen import Board


def board() -> Board:
    board = Board(["quick", "unlimited"], "USD")
    quick, unlimited = board.row("quick"), board.row("unlimited")
    quick.customers, quick.calls, quick.capped, quick.tokens, quick.charge_nanousd = 2, 10, 7, 450, 36_000_000
    unlimited.customers, unlimited.calls, unlimited.tokens, unlimited.held_tokens = 1, 3, 600, 16_384
    return board


def test_the_table_has_each_tier_and_their_sum() -> None:
    """A line a tier under one head, and the last line is their sum."""
    assert board().lines() == [
        "tier       customers  calls  at cap  tokens   held    charged",
        "quick              2     10       7     450      0  0.036 USD",
        "unlimited          1      3       0     600  16384   0.00 USD",
        "all                3     13       7    1050  16384  0.036 USD",
    ]


def test_refusals_are_told_where_there_are_any() -> None:
    """Codes are added up over the tiers."""
    screen = board()
    screen.row("quick").refusals["rate_limit_exceeded"] += 2
    screen.row("unlimited").refusals["rate_limit_exceeded"] += 1

    assert screen.lines()[-1] == "refused: rate_limit_exceeded 3"
    assert screen.short().endswith("0.036 USD charged; refused: rate_limit_exceeded 3")


def test_one_line_says_the_same() -> None:
    """Where nothing can be drawn anew, everything is in one line."""
    assert board().short() == (
        "13 calls (quick 10, unlimited 3); 1050 tokens; 7 at their cap; 16384 held; 0.036 USD charged"
    )
