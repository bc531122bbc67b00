"""The routes of ``/admin/menus``: menus with a certificate are posted, put in force and rolled back."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel
from sqlalchemy import Connection

from gateway.admin.api.idempotency import Keep, Post, Replies
from gateway.admin.api.inputs import Input, Moment, TierName
from gateway.admin.api.pages import DEFAULT_LIMIT, Cursor, Limit, Page, position_of
from gateway.admin.api.problem_json import saved_only
from gateway.admin.api.routes import AdminServices, Routes
from gateway.admin.menus.certificate_check import Checker
from gateway.catalog import audit_rows, customer_rows, menu_rows
from gateway.catalog.menu_rows import Effective
from gateway.catalog.problems import Conflict, Invalid
from gateway.catalog.projector import project_menus
from gateway.clock import written
from gateway.holds.terms import Timeline
from gateway.ledger.cursors import cursor_of
from pricing.menus.menu import Menu, NotAMenu, split_version

MECHANISM = "mechanism"


class MenuInput(RootModel[dict[str, Any]]):
    """A complete `menu.json`, as `tokencap price menu` writes it."""


class Publishing(Input):
    """When a menu comes into force, and the new tiers of customers whose tier it lacks."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"effective": "now", "moves": {"old": "new"}}]})

    effective: Effective = Field(
        default="now",
        description="`now`: from each customer's next conversation on. `next_period`: from its next period on.",
    )
    moves: dict[TierName, TierName] = Field(
        default_factory=dict, description="Old tier names, and the new tiers of their customers."
    )

    arms: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        max_length=20,
        description="An experiment: menus of the same tiers, each with the share of customers created from now on that "
        "have it instead, chosen by their ids alone, until the next publication.",
    )


class PublicationShown(BaseModel):
    """A publication: the menu was put in force."""

    at: Moment
    effective: Effective
    moves: dict[str, str]
    arms: dict[str, float] = Field(description="Menus that a share of new customers has instead.")


class MenuShown(BaseModel):
    """A summary of a menu; `GET /admin/menus/{version}` returns all of it."""

    version: str
    source: str = Field(
        description="`mechanism`: computed and certified. `manual`: typed by hand. `experiment`: a step from another menu."
    )
    created: Moment = Field(description="When the menu was added.")
    bill: str
    currency: str
    tiers: list[str]
    in_force: bool = Field(description="Whether it is in force for customers whose periods are months in UTC.")
    published: list[PublicationShown]
    own_prices: int = Field(
        description="If it is in force: how many customers have prices of their own, so that no certificate holds."
    )
    resume_gain_nanousd: float | None = Field(
        default=None, description="A customer's possible gain from sending cut answers back, by the menu's certificate."
    )


class MenusShown(Page[MenuShown]):
    """Menus in the order they were created."""


class Menus:
    """Menus, version by version. A menu never changes; a publication puts a menu in force."""

    def __init__(self, services: AdminServices, replies: Replies, checker: Checker) -> None:
        self._services = services
        self._database = services.database
        self._replies = replies
        self._checker = checker

    def add_to(self, routes: Routes) -> None:
        path = "/menus/{version}"
        routes.add("POST", "/menus", self.post, "Post a menu with its certificate", 409)
        routes.add("GET", "/menus", self.list, "List menus")
        routes.add("GET", path, self.read, "Read a complete menu", 404)
        routes.add("POST", f"{path}/publish", self.publish, "Put a menu in force", 404, 409)
        routes.add("POST", f"{path}/rollback", self.rollback, "Go back to a menu that was in force", 404, 409)

    def post(self, body: MenuInput, posted: Post) -> MenuShown:
        """Accept a menu whose certificate holds; a separate process computes every figure of it again."""
        menu = self._readable(body.root)

        def change(keep: Keep) -> MenuShown:
            with self._database.read() as connection:
                menu_rows.refuse_existing(connection, menu.version)
            self._checker.check(body.root)
            with self._database.write() as connection:
                now = self._services.now_ms()
                menu_rows.add_menu(connection, body.root, source=MECHANISM, created=now)
                answer = self._shown(connection, menu.version, menu_rows.read_timeline(connection))
                self._record(connection, posted.actor, "menu.post", menu.version, {"tiers": answer.tiers})
                keep(connection, answer)
            return answer

        return self._replies.once(posted, body, MenuShown, change)

    def _readable(self, body: dict[str, Any]) -> Menu:
        try:
            menu = Menu.from_json(body)
        except NotAMenu as error:
            raise Invalid.field(error.field, str(error)) from error
        if menu.currency != self._services.settings.currency:
            raise Invalid.field("currency", f"Everything here is in {self._services.settings.currency}.")
        return menu

    def list(self, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> MenusShown:
        """List menus in the order they were created, including those of tiers typed by hand."""
        after = None if cursor is None else position_of(cursor, int, str)
        with self._database.read() as connection:
            timeline = menu_rows.read_timeline(connection)
            rows = menu_rows.read_page(connection, limit + 1, after)
            data = [self._shown(connection, row.version, timeline) for row in rows[:limit]]
        last = rows[limit - 1] if len(rows) > limit else None
        return MenusShown(data=data, next_cursor=cursor_of(last.created, last.version) if last else None)

    def read(self, version: str) -> dict[str, Any]:
        """Return a menu as it was posted, with market and certificate.

        Records of a customer with prices of its own have a version such as `v1+c900`: the menu with those prices, for
        which no certificate holds.
        """
        base, own = split_version(version)
        with self._database.read() as connection:
            if not own:
                return menu_rows.read_body(connection, version)
            return menu_rows.read_menu(connection, base).with_prices(own).to_json() | {"certificate": None}

    def publish(self, version: str, body: Publishing, posted: Post) -> MenuShown:
        """Put a menu in force. Live calls, open conversations and paid periods keep the version they began with.

        Weigh first whether sending cut answers back pays (`resume_gain_nanousd`): publishing accepts it.
        """

        def change(keep: Keep) -> MenuShown:
            return self._put_in_force(version, body, posted.actor, "menu.publish", keep)

        return self._replies.once(posted, body, MenuShown, change)

    def rollback(self, version: str, posted: Post, body: Publishing | None = None) -> MenuShown:
        """Go back to this menu if it was in force before, or to the menu before it if it is in force now.

        Customers whom the last publication moved to tiers that this menu lacks are moved back, unless `moves` differs.
        """
        request = body or Publishing()

        def change(keep: Keep) -> MenuShown:
            with self._database.read() as connection:
                timeline = menu_rows.read_timeline(connection)
                target = menu_rows.earlier(timeline, version)
                if target is None:
                    menu_rows.read_body(connection, version)
                    raise Conflict(f"The menu {version!r} has nothing to go back to.", code="never_in_force")
                menu = menu_rows.read_menu(connection, target)
            moves = menu_rows.moved_back(timeline, menu) | request.moves
            publishing = Publishing(effective=request.effective, moves=moves, arms=request.arms)
            return self._put_in_force(target, publishing, posted.actor, "menu.rollback", keep)

        return self._replies.once(posted, request, MenuShown, change)

    def _put_in_force(self, version: str, request: Publishing, actor: str, action: str, keep: Keep) -> MenuShown:
        with self._database.write() as connection:
            menu_rows.hold_still(connection, to_publish=True)
            menu = menu_rows.read_menu(connection, version)
            now = self._services.now_ms()
            menu_rows.publish(
                connection, menu, now_ms=now, effective=request.effective, moves=request.moves, arms=request.arms
            )
            answer = self._shown(connection, version, menu_rows.read_timeline(connection))
            self._record(connection, actor, action, version, request.model_dump())
            keep(connection, answer)
        with saved_only(answer):
            project_menus(self._database, self._services.projection)
        return answer

    def _shown(self, connection: Connection, version: str, timeline: Timeline) -> MenuShown:
        row = menu_rows.find(connection, version)
        body = json.loads(row.body)
        totals = body.get("totals")
        in_force = menu_rows.in_force(timeline, self._services.now_ms()) == version
        return MenuShown(
            version=row.version,
            source=row.source,
            created=written(row.created),
            bill=body["bill"],
            currency=body["currency"],
            tiers=[tier["name"] for tier in body["tiers"]],
            in_force=in_force,
            published=[
                PublicationShown(
                    at=written(publication.at),
                    effective=publication.effective,
                    moves=publication.moves,
                    arms=publication.arms,
                )
                for publication in timeline.publications
                if publication.version == version
            ],
            own_prices=customer_rows.with_own_prices(connection) if in_force else 0,
            resume_gain_nanousd=totals.get("resume_gain_nanousd") if isinstance(totals, dict) else None,
        )

    def _record(self, connection: Connection, actor: str, action: str, version: str, after: dict[str, Any]) -> None:
        now = self._services.now_ms()
        audit_rows.record(connection, time=now, actor=actor, action=action, target=version, before=None, after=after)
