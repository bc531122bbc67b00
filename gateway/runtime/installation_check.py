"""The start of an installation: its data directory and ledger name each other; a lost ledger does not count as new."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.errors import StartupError
from gateway.ledger.database import Database
from gateway.ledger.installation import begun

FILE = "installation.json"


@dataclass(frozen=True, slots=True)
class Mark:
    """A data directory's record of its installation: its id, and whether its ledger has been begun."""

    id: str
    has_begun: bool

    @classmethod
    def read(cls, directory: Path) -> Mark | None:
        """Return the mark of a directory; None where the directory has no mark.

        Raises:
            StartupError: the mark cannot be read.
        """
        path = directory / FILE
        try:
            record = json.loads(path.read_text("utf-8"))
            return cls(str(record["id"]), bool(record["has_begun"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StartupError(
                f"{path} does not say which installation this is: put it back, or remove it to take what the ledger says."
            ) from error

    def write(self, directory: Path) -> None:
        """Write the mark; a reader finds the old or the new mark, never half a mark."""
        part = directory / f"{FILE}.part"
        part.write_text(json.dumps(asdict(self)) + "\n", "utf-8")
        part.replace(directory / FILE)


def opened(
    database: Database,
    directory: Path,
    *,
    currency: str | None,
    default_currency: str,
    new_id: Callable[[], str],
    now_ms: int,
) -> tuple[str, str]:
    """Bring a ledger's tables to this version's schema, and return its installation's id and currency.

    The directory is claimed. It is marked before the ledger is begun, so that a killed first start can be distinguished
    from a lost ledger.

    Args:
        currency: the operator's setting; None for the ledger's own.

    Raises:
        StartupError: the ledger is empty but was not always, belongs to another installation or has another currency.
    """
    mark = Mark.read(directory)
    if not database.has_tables():
        _refuse_lost(database, directory, mark)
        mark = mark or Mark(new_id(), has_begun=False)
        mark.write(directory)
    database.migrate()
    proposed = mark.id if mark else new_id()
    identity, ledger_currency = begun(
        database, new_id=proposed, currency=currency, default=default_currency, now_ms=now_ms
    )
    if mark is not None and mark.has_begun and mark.id != identity:
        raise StartupError(
            f"The data directory {directory} belongs to installation {mark.id} and the ledger at {database.place} to "
            f"{identity}: set TOKENCAP_DATA_DIR and TOKENCAP_DATABASE_URL to those of one installation."
        )
    if mark != Mark(identity, has_begun=True):
        Mark(identity, has_begun=True).write(directory)
    return identity, ledger_currency


def _refuse_lost(database: Database, directory: Path, mark: Mark | None) -> None:
    if mark is not None and mark.has_begun:
        raise StartupError(
            f"The ledger at {database.place} is empty, and the data directory {directory} has had one: put it back, with "
            "the -wal file beside it where it is SQLite, or restore a backup (`tokencap restore`). "
            "A new installation has a data directory of its own."
        )
    if mark is None and database.is_a_file_without_tables():
        raise StartupError(
            f"The ledger at {database.place} is a database without any table, as is a copy of a running gateway's ledger "
            "without the -wal file beside it: put both back, or remove the file to begin anew."
        )
