"""A copy of the project to put faults into: its files, and an environment with the copy installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.house.files import ROOT
from tests.mutants.faults import Fault

VENV = Path(sys.prefix)


class Tree:
    """A copy in a directory."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, directory / name)
        self._link_environment()
        self._compile()

    @property
    def python(self) -> Path:
        return self.root / ".venv" / "bin" / "python"

    @contextmanager
    def faulty(self, fault: Fault) -> Iterator[None]:
        """Put a fault in for the duration of the block."""
        path = self.root / fault.path
        text = path.read_text("utf-8")
        path.write_text(fault.put_into(text), "utf-8")
        try:
            yield
        finally:
            path.write_text(text, "utf-8")

    def _link_environment(self) -> None:
        """Link everything in the environment; files that contain the project's path are copied and changed."""
        own = self.root / ".venv"
        packages = next(VENV.glob("lib/python*/site-packages"))
        own_packages = own / packages.relative_to(VENV)
        for source, target in ((VENV / "bin", own / "bin"), (packages, own_packages)):
            target.mkdir(parents=True)
            for path in source.iterdir():
                self._link(path, target / path.name)
        shutil.copy(VENV / "pyvenv.cfg", own)

    def _link(self, path: Path, target: Path) -> None:
        is_text = path.suffix == ".pth" or (path.parent.name == "bin" and path.is_file() and not path.is_symlink())
        text = path.read_bytes() if is_text else b""
        if bytes(ROOT) in text:
            target.write_bytes(text.replace(bytes(ROOT), bytes(self.root)))
            target.chmod(path.stat().st_mode)
        elif path.is_symlink():
            target.symlink_to(path.readlink())
        else:
            target.symlink_to(path)

    def _compile(self) -> None:
        """Compile the code with hashes of the source, so that two faults put in within one second are told apart."""
        command = [self.python, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "gateway", "pricing"]
        subprocess.run(command, cwd=self.root, check=True)
