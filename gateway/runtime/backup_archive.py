"""Backups of an installation: a copy of its ledger at one moment, with a page that names installation and moment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.clock import written
from gateway.errors import StartupError
from gateway.ledger.book.verify import Verification, verify_all
from gateway.ledger.database import Database
from gateway.ledger.ledger_copy import State, copy_file, snapshot, state_of
from gateway.runtime.installation_check import Mark

PAGE = "backup.json"
SQLITE, POSTGRESQL = "ledger.sqlite", "ledger.dump"
FORMAT = 1
CHUNK = 2**20
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True, slots=True)
class Backup:
    """The page about a backup, ``backup.json``."""

    taken: str
    file: str
    bytes: int
    sha256: str
    state: State

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Backup:
        fields = {name: values[name] for name in ("taken", "file", "bytes", "sha256")}
        if values["format"] != FORMAT or fields["file"] not in (SQLITE, POSTGRESQL):
            raise ValueError
        return cls(**fields, state=State(**values["state"]))


def back_up(database: Database, to: Path, now_ms: int) -> tuple[Backup, list[Verification]]:
    """Write a backup of a ledger, which may be written to meanwhile, and recount the copy; return backup and recounts.

    ``to`` is a new directory, or a new file that ends in .tar, .tar.gz or .tgz. It appears only when it is complete.

    Raises:
        StartupError: ``to`` exists or cannot be written, or PostgreSQL's programs are not installed or fail.
    """
    if to.exists():
        raise StartupError(f"{to} is there already: a backup is written to a place of its own.", exit_code=2)
    to.absolute().parent.mkdir(parents=True, exist_ok=True)
    with _beside(to) as work:
        name = SQLITE if database.is_sqlite else POSTGRESQL
        state = _copied(database, work / name)
        backup = Backup(written(now_ms), name, (work / name).stat().st_size, _digest(work / name), state)
        verifications = _recounted(work / name) if database.is_sqlite else verify_all(database)
        (work / PAGE).write_text(json.dumps(backup.to_json(), indent=1) + "\n", "utf-8")
        _put_in_place(work, to)
    return backup, verifications


def restore(source: Path, database: Database, directory: Path) -> tuple[Backup, list[Verification]]:
    """Put a backup into a claimed data directory and a ledger that does not exist yet; return backup and recounts.

    Raises:
        StartupError: ``source`` is not a complete backup, the ledger or the directory has been used, the ledger is of
            another kind, or the restored ledger differs from the backup; a restored SQLite ledger is then removed.
    """
    _refuse_used(database, directory)
    with _opened(source) as contents:
        backup = _read(contents, source)
        file = contents / backup.file
        if (backup.file == SQLITE) != database.is_sqlite:
            raise StartupError(
                f"{source} is a backup of {_kind(backup)}, and the ledger at {database.place} is of another kind.", 2
            )
        if not file.exists() or file.stat().st_size != backup.bytes or _digest(file) != backup.sha256:
            raise StartupError(f"{source} is damaged: {backup.file} is not the file that was backed up.", exit_code=1)
        if database.is_sqlite:
            _place(file, Path(str(database.url.database)))
        else:
            _run("pg_restore", database, "--exit-on-error", "--single-transaction", str(file))
    database.migrate()
    recounts = verify_all(database)
    with database.read() as connection:
        state = state_of(connection)
    if state != backup.state:
        _take_away(database)
        again = "restore it anew" if database.is_sqlite else "empty the database and restore it anew"
        raise StartupError(
            f"The ledger restored from {source} does not end where the backup says: {again}.", exit_code=1
        )
    if state.installation is not None:
        Mark(state.installation, has_begun=True).write(directory)
    return backup, recounts


def _copied(database: Database, target: Path) -> State:
    """Copy a ledger at one moment; return its state at that moment."""
    if database.is_sqlite:
        try:
            copy_file(Path(str(database.url.database)), target)
        except sqlite3.Error as error:
            raise StartupError(f"The ledger at {database.place} cannot be copied: {error}.") from error
        with _opened_copy(target) as copy, copy.read() as connection:
            return state_of(connection)
    with snapshot(database) as (name, state):
        options = ("--format=custom", "--no-owner", "--no-privileges", f"--snapshot={name}", f"--file={target}")
        _run("pg_dump", database, *options)
    _run("pg_restore", None, "--list", str(target))
    return state


def _recounted(file: Path) -> list[Verification]:
    with _opened_copy(file) as copy:
        return verify_all(copy)


@contextmanager
def _opened_copy(file: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{file.absolute()}")) as copy:
        yield copy


def _refuse_used(database: Database, directory: Path) -> None:
    is_used = (directory / "valkey" / "appendonlydir").exists() or Mark.read(directory) is not None
    if is_used or database.has_tables() or database.is_a_file_without_tables():
        raise StartupError(
            f"The data directory {directory} or the ledger at {database.place} has been used: "
            "a backup is restored into an empty directory and an empty database.",
            exit_code=2,
        )


@contextmanager
def _beside(to: Path) -> Iterator[Path]:
    """Yield a new directory on the same disk, removed at the end."""
    work = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.absolute().parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put_in_place(work: Path, to: Path) -> None:
    if not to.name.endswith(TAR_ENDINGS):
        work.rename(to)
        return
    part = work / f"{to.name}.part"
    with tarfile.open(part, "w:gz" if to.name.endswith("gz") else "w") as archive:
        for name in (PAGE, SQLITE, POSTGRESQL):
            if (work / name).exists():
                archive.add(work / name, arcname=name)
    part.rename(to)


@contextmanager
def _opened(source: Path) -> Iterator[Path]:
    """Yield the directory of a backup; a file is unpacked beside it until the block ends."""
    if not source.is_file():
        yield source
        return
    with _beside(source) as work:
        try:
            with tarfile.open(source) as archive:
                for name in (PAGE, SQLITE, POSTGRESQL):
                    if name in archive.getnames():
                        _copy_out(archive, name, work / name)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise StartupError(f"{source} is no whole backup: {error}.", exit_code=1) from error
        yield work


def _copy_out(archive: tarfile.TarFile, name: str, to: Path) -> None:
    """Copy the content of a member; the member's own path, owner and mode are ignored."""
    content = archive.extractfile(name)
    if content is None:
        raise tarfile.TarError(f"its {name} is no file")
    with content, to.open("wb") as file:
        shutil.copyfileobj(content, file)


def _read(contents: Path, source: Path) -> Backup:
    try:
        return Backup.from_json(json.loads((contents / PAGE).read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StartupError(f"{source} is no backup: it has no {PAGE} that says what is in it.", exit_code=1) from error


def _place(file: Path, ledger: Path) -> None:
    """Copy a file to the ledger's place; it appears there only when it is complete."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    part = ledger.with_name(f"{ledger.name}.part")
    shutil.copyfile(file, part)
    part.chmod(0o600)
    with part.open("rb+") as copied:
        os.fsync(copied.fileno())
    part.rename(ledger)


def _take_away(database: Database) -> None:
    """Remove a ledger that was just put in place; only its operator drops a PostgreSQL database."""
    if database.is_sqlite:
        database.close()
        ledger = Path(str(database.url.database))
        for ending in ("", "-wal", "-shm"):
            ledger.with_name(ledger.name + ending).unlink(missing_ok=True)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _kind(backup: Backup) -> str:
    return "SQLite" if backup.file == SQLITE else "PostgreSQL"


def _run(program: str, database: Database | None, *options: str) -> None:
    """Run a program of PostgreSQL on a database; the password is in the environment, which no process list shows."""
    executable = shutil.which(program)
    if executable is None:
        raise StartupError(f"{program} is not installed: a ledger in PostgreSQL is backed up and restored with it.")
    command, environment = [executable, *options], dict(os.environ)
    if database is not None:
        url = database.url.set(drivername="postgresql")
        environment["PGPASSWORD"] = url.password or environment.get("PGPASSWORD", "")
        command.append(f"--dbname={url.set(password=None).render_as_string()}")
    completed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words, a path and a URL
    if completed.returncode != 0:
        reason = next(
            (line for line in completed.stderr.splitlines() if line.strip()), f"status {completed.returncode}"
        )
        raise StartupError(f"{program} failed: {reason.strip()}")
