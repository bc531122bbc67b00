"""The menu recomputed: a draft with its comparison, limits, reasons; whoever dies, the menu in force stays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.admin.menus.run_input import RunInput
from gateway.catalog import menu_rows, run_rows
from gateway.clock import now_ms
from gateway.ledger.book.appender import append
from gateway.ledger.database import Database
from gateway.repricing.drafting import draft
from gateway.repricing.scheduler import Scheduler
from pricing.certificate import verify
from tests.gateway.admin.menus import ready_draft
from tests.gateway.admin.operator import Clock, Operator
from tests.gateway.cli.commands import tokencap
from tests.pricing.estimate.simulated import Truth
from tests.pricing.estimate.talking import NOON, menu_of, talk
from tests.waiting import until

TRUTH = Truth((0.01, 0.05, 0.15), (0.3, 0.4, 0.3), median_tokens=300, sigma=1.5)
BAD = menu_of((None,), (300_000_000,))
ASKED = {"value_nanousd": 1_000_000_000, "tiers": 3, "draws": 10, "seed": 2}
FREELY = {"cap_factor_max": 1000, "price_factor_max": 1000}
WITHIN = {**ASKED, **FREELY}

ON_ONE_LEDGER = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
"""For what becomes of a draft: what is read of either ledger, and put in force in it, two tests hold already."""

Draft = Callable[[Mapping[str, Any]], Path]


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    random = np.random.default_rng(1)
    return list(talk(TRUTH, BAD, customers=150, conversations=20, random=random, named=False))


@pytest.fixture
def ledger(database: Database, records: list[dict[str, Any]]) -> Database:
    """A ledger with a bad menu in force, one dear tier, and what customers did with it."""
    with database.write() as connection:
        menu = menu_rows.add_menu(connection, BAD, source="manual", created=NOON)
        menu_rows.publish(connection, menu, now_ms=NOON)
    append(database, records)
    return database


@pytest.fixture
def pricer_of(ledger_url: str) -> Iterator[Callable[..., Scheduler]]:
    """Make pricers as the bookkeeper has one; all are stopped at the end."""
    schedulers: list[tuple[Scheduler, Database]] = []

    def make(**options: Any) -> Scheduler:
        database = Database(ledger_url)
        environment = {**os.environ, "TOKENCAP_DATABASE_URL": ledger_url}
        scheduler = Scheduler(
            database, environment, now_ms=options.pop("now_ms", now_ms), new_id=lambda: "run_1", **options
        )
        schedulers.append((scheduler, database))
        return scheduler

    yield make
    for scheduler, database in schedulers:
        scheduler.stop()
        database.close()


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the drafts of the ledger as every test has it, each computed once."""
    return tmp_path_factory.mktemp("drafts")


@pytest.fixture
def ready(ledger: Database, drafts: Path) -> Draft:
    """Compute the draft that a run would, in this process; for ``ready_draft.command``."""

    def drafted(parameters: Mapping[str, Any]) -> Path:
        request = RunInput(
            **{**parameters, "publish": "no"}
        ).model_dump()  # what is published is not the draft's matter
        path = drafts / f"{hashlib.sha256(json.dumps(request).encode()).hexdigest()}.json"
        if not path.exists():
            ready_draft.write(path, draft(ledger, "USD", request, now_ms(), lambda *_: None))
        return path

    return drafted


def in_force(database: Database) -> str | None:
    with database.read() as connection:
        return menu_rows.in_force(menu_rows.read_timeline(connection), now_ms())


def is_drafting(database: Database, run_id: str) -> bool:
    with database.read() as connection:
        return bool(run_rows.find(connection, run_id).doing == ready_draft.DRAFTING)


def worked_off(scheduler: Scheduler, database: Database, run_id: str) -> None:
    """Turn as the bookkeeper does until a run has ended."""

    def has_ended() -> bool:
        scheduler.turn()
        with database.read() as connection:
            return run_rows.find(connection, run_id).state not in run_rows.OPEN

    until(has_ended, 600)


async def test_a_run_drafts_a_certified_menu_of_the_market_that_the_command_learns_and_compares_it_with_the_one_in_force(
    ledger: Database, ledger_url: str, operator: Operator, pricer_of: Callable[..., Scheduler], tmp_path: Path
) -> None:
    posted = await operator.post("/admin/pricing/runs", ASKED)
    assert posted["state"] == "queued"

    worked_off(pricer_of(), ledger, posted["id"])

    run = await operator.get(f"/admin/pricing/runs/{posted['id']}")
    assert (run["state"], run["published"], run["progress"]["percent"]) == ("done", None, 100), run["reason"]
    assert verify(run["draft"]).ok
    assert len(run["draft"]["tiers"]) == 3
    assert run["estimates"]["estimate"]["sources"] == ["disconnects"]
    assert "intervals" in run["estimates"]
    comparison = run["comparison"]
    profit = comparison["profit_nanousd"]
    assert profit["draft"]["mean"] > profit["in_force"]["mean"]
    assert profit["draft"]["low"] <= profit["draft"]["mean"]
    assert comparison["gain_over_single_plan_nanousd"]["least"] > 0
    assert sum(move["share"] for move in comparison["moves"]) == pytest.approx(1)
    assert 0 <= comparison["pays_more_share"] <= 1
    assert sum(group["share"] for group in comparison["types"]) == pytest.approx(1)
    [replay] = comparison["replay"]["tiers"]
    assert replay["tier"] == "t1"
    assert replay["complete_after_least"] <= replay["complete_before"] <= replay["conversations"]
    assert in_force(ledger) == "m1"
    assert (await operator.get("/admin/menus"))["data"][-1]["version"] == run["draft"]["version"]
    wanted = ("--value-nanousd", "1000000000", "--draws", "10", "--seed", "2", "--out", "-")
    fitted = tokencap(tmp_path / "data", "price", "fit", "--database", ledger_url, *wanted)
    assert fitted.returncode == 0, fitted.stderr
    market = json.loads(fitted.stdout)
    understated_by = market["estimate"]["value_understated_by"]
    assert market == run["estimates"]
    assert market["value_nanousd"] == pytest.approx(1e9 * (1 - understated_by))
    assert run["draft"]["market"] == market


async def test_a_draft_within_the_limits_is_put_in_force_if_that_was_asked_and_can_be_taken_back(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], ready: Draft
) -> None:
    posted = await operator.post("/admin/pricing/runs", {**WITHIN, "publish": "now"})

    worked_off(pricer_of(command=ready_draft.command(ready(WITHIN))), ledger, posted["id"])

    run = await operator.get(f"/admin/pricing/runs/{posted['id']}")
    assert run["state"] == "done"
    assert run["published"] is not None
    assert in_force(ledger) == run["draft"]["version"]
    audited = (await operator.get("/admin/audit?action=menu.publish"))["data"]
    assert audited[0]["after"]["run"] == posted["id"]
    [requested] = (await operator.get("/admin/audit?action=pricing.run"))["data"]
    assert audited[0]["actor"] == requested["actor"]
    with ledger.read() as connection:
        published = menu_rows.read_timeline(connection).publications[-1]
    assert published.moves == {}, "every tier in force is a tier of the draft, too"
    await operator.post(f"/admin/menus/{run['draft']['version']}/rollback", {})
    assert in_force(ledger) == "m1"


@ON_ONE_LEDGER
async def test_a_draft_that_waits_for_the_next_period_is_what_customers_are_told_comes_next(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], ready: Draft
) -> None:
    customer = await operator.customer(tier="t1")
    posted = await operator.post("/admin/pricing/runs", {**WITHIN, "publish": "next_period"})

    worked_off(pricer_of(command=ready_draft.command(ready(WITHIN))), ledger, posted["id"])

    run = await operator.get(f"/admin/pricing/runs/{posted['id']}")
    assert in_force(ledger) == "m1"
    with ledger.read() as connection:
        timeline = menu_rows.read_timeline(connection)
    assert timeline.publications[-1].effective == "next_period"
    assert timeline.publications[-1].version == run["draft"]["version"]
    assert customer.startswith("cus_")


@ON_ONE_LEDGER
async def test_a_draft_within_the_limits_stays_a_draft_unless_publishing_was_requested(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], ready: Draft
) -> None:
    posted = await operator.post("/admin/pricing/runs", WITHIN)

    worked_off(pricer_of(command=ready_draft.command(ready(WITHIN))), ledger, posted["id"])

    run = await operator.get(f"/admin/pricing/runs/{posted['id']}")
    assert (run["state"], run["published"], run["reason"]) == ("done", None, None)
    with ledger.read() as connection:
        assert [one.version for one in menu_rows.read_timeline(connection).publications] == ["m1"]


@ON_ONE_LEDGER
async def test_customers_move_to_the_tier_that_the_operator_named_and_else_to_the_one_that_the_draft_names(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], ready: Draft, tmp_path: Path
) -> None:
    """The draft moves two tiers to its first; of one of them the request says that it becomes the last."""
    result = json.loads(ready(WITHIN).read_text())
    first, *_, last = [tier["name"] for tier in result["draft"]["tiers"]]
    (tmp_path / "draft").write_text(json.dumps({**result, "moves": {"gold": first, "iron": first}}))
    posted = await operator.post("/admin/pricing/runs", {**WITHIN, "publish": "now", "moves": {"gold": last}})

    worked_off(pricer_of(command=ready_draft.command(tmp_path / "draft")), ledger, posted["id"])

    with ledger.read() as connection:
        assert menu_rows.read_timeline(connection).publications[-1].moves == {"gold": last, "iron": first}


@ON_ONE_LEDGER
async def test_a_draft_that_moves_too_far_at_once_stays_a_draft(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], ready: Draft
) -> None:
    wanted = {**ASKED, "publish": "now", "cap_factor_max": 1.01, "price_factor_max": 1.01}
    posted = await operator.post("/admin/pricing/runs", wanted)

    worked_off(pricer_of(command=ready_draft.command(ready(wanted))), ledger, posted["id"])

    run = await operator.get(f"/admin/pricing/runs/{posted['id']}")
    assert (run["state"], run["published"]) == ("done", None)
    assert "is the most at once" in run["reason"]
    assert in_force(ledger) == "m1"
    await operator.post(f"/admin/menus/{run['draft']['version']}/publish", {})
    assert in_force(ledger) == run["draft"]["version"]


@ON_ONE_LEDGER
async def test_a_draft_that_would_leave_customers_without_a_tier_stays_a_draft(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], tmp_path: Path
) -> None:
    """Nobody would take the customer's tier by itself, so nobody can say where it would go."""
    await operator.put("/admin/tiers/gold", {"price_nanousd": 310_000_000})
    await operator.customer(tier="gold")
    posted = await operator.post("/admin/pricing/runs", {**WITHIN, "tiers": 3, "publish": "now"})

    request = RunInput(**posted["asked"]).model_dump()
    ready_draft.write(tmp_path / "draft", draft(ledger, "USD", request, now_ms(), lambda *_: None))

    worked_off(pricer_of(command=ready_draft.command(tmp_path / "draft")), ledger, posted["id"])

    run = await operator.get(f"/admin/pricing/runs/{posted['id']}")
    assert (run["state"], run["published"]) == ("done", None)
    assert "1 customer has the tier 'gold'" in run["reason"]


@ON_ONE_LEDGER
@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"draws": 20}, "Nobody says what an answer is worth"),
        ({**ASKED, "assumed": "nobody"}, "There is no starter market 'nobody'"),
        ({**ASKED, "days": 1}, "0 customers are too few"),
        ({**ASKED, "confidence": 0.999, "tiers": 1}, "does not earn more than the best single plan"),
    ],
)
async def test_a_run_without_a_menu_worth_selling_is_refused_with_the_reason(
    ledger: Database, operator: Operator, ledger_url: str, tmp_path: Path, wanted: dict[str, Any], reason: str
) -> None:
    posted = await operator.post("/admin/pricing/runs", {**wanted, "publish": "now"})

    with ledger.write() as connection:
        claim = run_rows.take(connection, now_ms())
    assert claim is not None
    assert tokencap(tmp_path / "data", "price", "run", claim.id, "1", database_url=ledger_url).returncode == 0

    run = await operator.get(f"/admin/pricing/runs/{posted['id']}")
    assert run["state"] == "refused"
    assert reason in run["reason"]
    assert in_force(ledger) == "m1"


@ON_ONE_LEDGER
async def test_a_run_whose_process_is_killed_changes_nothing_and_is_taken_up_again(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], ready: Draft, tmp_path: Path
) -> None:
    posted = await operator.post("/admin/pricing/runs", {**WITHIN, "publish": "now"})
    path = tmp_path / "draft"
    scheduler = pricer_of(command=ready_draft.command(path))
    assert scheduler.turn()
    assert scheduler._process is not None
    until(lambda: is_drafting(ledger, posted["id"]))

    scheduler._process.kill()
    scheduler._process.wait()

    assert in_force(ledger) == "m1"
    assert (await operator.get(f"/admin/pricing/runs/{posted['id']}"))["state"] == "running"
    path.symlink_to(ready(WITHIN))
    worked_off(scheduler, ledger, posted["id"])
    assert (await operator.get(f"/admin/pricing/runs/{posted['id']}"))["state"] == "done"
    assert in_force(ledger) != "m1"


@ON_ONE_LEDGER
async def test_a_run_survives_a_restart_of_the_bookkeeper(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], ready: Draft, tmp_path: Path
) -> None:
    posted = await operator.post("/admin/pricing/runs", ASKED)
    path = tmp_path / "draft"
    first = pricer_of(command=ready_draft.command(path))
    first.turn()

    first.stop()

    assert (await operator.get(f"/admin/pricing/runs/{posted['id']}"))["state"] == "queued"
    path.symlink_to(ready(WITHIN))
    worked_off(pricer_of(command=ready_draft.command(path)), ledger, posted["id"])
    assert (await operator.get(f"/admin/pricing/runs/{posted['id']}"))["state"] == "done"


@ON_ONE_LEDGER
async def test_a_cancelled_run_ends_its_process_and_publishes_nothing(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], tmp_path: Path
) -> None:
    posted = await operator.post("/admin/pricing/runs", {**WITHIN, "publish": "now"})
    scheduler = pricer_of(command=ready_draft.command(tmp_path / "never written"))
    scheduler.turn()
    assert scheduler._process is not None
    until(lambda: is_drafting(ledger, posted["id"]))

    cancelled = await operator.post(f"/admin/pricing/runs/{posted['id']}/cancel")

    assert cancelled["state"] == "cancelled"
    until(lambda: scheduler._process is None or scheduler._process.poll() is not None)
    assert (await operator.get(f"/admin/pricing/runs/{posted['id']}"))["state"] == "cancelled"
    assert in_force(ledger) == "m1"
    refused = await operator.refused("POST", f"/admin/pricing/runs/{posted['id']}/cancel")
    assert refused["code"] == "run_ended"


@ON_ONE_LEDGER
async def test_of_two_runs_the_second_waits_also_for_another_gateways(
    ledger: Database, operator: Operator, pricer_of: Callable[..., Scheduler], clock: Clock, ready: Draft
) -> None:
    first = await operator.post("/admin/pricing/runs", ASKED)
    clock.ms += 1
    second = await operator.post("/admin/pricing/runs", {**ASKED, "days": 1})
    one, other = pricer_of(command=ready_draft.command(ready(WITHIN))), pricer_of()

    assert one.turn()
    assert not other.turn()

    assert (await operator.get(f"/admin/pricing/runs/{second['id']}"))["state"] == "queued"
    worked_off(one, ledger, first["id"])
    worked_off(other, ledger, second["id"])
    listed = (await operator.get("/admin/pricing/runs"))["data"]
    assert [run["id"] for run in listed] == [second["id"], first["id"]]
    assert [run["state"] for run in listed] == ["refused", "done"], "the second has nothing to read of its day"


@ON_ONE_LEDGER
def test_a_scheduled_run_is_carried_out_like_any_other(ledger: Database, pricer_of: Callable[..., Scheduler]) -> None:
    """It leaves out most of what may be asked; here nobody has said what an answer is worth."""
    scheduler = pricer_of(every_h=24, asked={"days": 3650, "publish": "no"})
    scheduler.turn()

    worked_off(scheduler, ledger, "run_1")

    with ledger.read() as connection:
        run = run_rows.find(connection, "run_1")
    assert run.state == "refused"
    assert "Nobody says what an answer is worth" in run.reason


async def test_repeating_a_post_with_its_key_asks_for_nothing_twice(operator: Operator) -> None:
    first = await operator.post("/admin/pricing/runs", ASKED, idempotency_key="monday")
    again = await operator.post("/admin/pricing/runs", ASKED, idempotency_key="monday")

    assert again == first
    assert len((await operator.get("/admin/pricing/runs"))["data"]) == 1


async def test_what_cannot_be_asked_is_refused(operator: Operator) -> None:
    refused = await operator.refused("POST", "/admin/pricing/runs", {"tiers": 0, "publish": "soon"})
    unknown = await operator.refused("GET", "/admin/pricing/runs/run_none")

    assert {error["field"] for error in refused["errors"]} == {"tiers", "publish"}
    assert unknown["status"] == 404
