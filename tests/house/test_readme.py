"""The README tells the truth: its links lead somewhere, its tables are the code's."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway import errors
from gateway.cli.main import COMMANDS
from gateway.metrics.definitions import METRICS
from gateway.serving.fields.field_tables import page
from gateway.serving.fields.guarded_fields import OURS
from gateway.settings import Settings
from tests.house.files import FOLDERS, ROOT, name_of, written_files

README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [path for path in written_files() if path.suffix == ".md"]
NOT_FOR_CALLERS = {"internal_error", "caller_gone"}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_relative_links_and_named_files_exist(path: Path) -> None:
    """Whatever a document links to in this repository, or names by its place in it, is there."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if not re.match(r"[a-z]+:", link)]
    named = [name for name in re.findall(r"`([\w./-]+)`", text) if name.split("/")[0] in FOLDERS and "/" in name]

    assert [link for link in links if not (path.parent / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_table_of_settings_is_the_settings() -> None:
    """Every setting has a row, every row is a setting, and the defaults are the code's."""
    written = {codes(name)[0]: (codes(default) or [""])[0] for name, default, _ in rows("Settings")}
    fields = {str(field.validation_alias or f"tokencap_{name}"): field for name, field in Settings.model_fields.items()}
    defaults = {name.upper(): field.default for name, field in fields.items()}

    texts = {name: str(default or "") for name, default in defaults.items()}
    assert written == {name: text.lower() if text == "True" else text for name, text in texts.items()}


def test_the_table_of_refusals_has_every_code() -> None:
    """A caller finds each code that the gateway itself gives, with its status."""
    written = {
        (int(status), code)
        for statuses, named, _ in rows("Refusals")
        for status in re.findall(r"\d+", statuses)
        for code in codes(named)
    }
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if not {one.__module__ for one in kind.__subclasses__()} & {errors.__name__}]
    given = {(kind.status, kind.code) for kind in kinds if issubclass(kind, errors.TokencapError)}
    given = {(status, code) for status, code in given if code not in NOT_FOR_CALLERS}

    assert given <= written
    assert {code for _, code in written} == {code for _, code in given}


def test_the_table_of_metrics_is_the_metrics() -> None:
    """Every metric has a row with its labels, in the code's order."""
    written = [(name, tuple(codes(labels))) for names, labels, _ in rows("Watching it") for name in codes(names)]

    assert written == [(metric.name, metric.labels) for metric in METRICS]


def test_the_page_of_fields_is_the_tables() -> None:
    """What docs/fields.md says of each field is what the gateway goes by."""
    assert (ROOT / "docs" / "fields.md").read_text("utf-8") == page()


def test_the_table_of_formats_has_every_format_with_its_limits() -> None:
    """The README names each route, and the limits that are the grant there."""
    written = {codes(route)[0].removeprefix("POST "): set(codes(limits)) for route, limits, _ in rows("Formats")}

    assert written.keys() == OURS.keys()
    assert all(limits <= OURS[route] for route, limits in written.items())


def test_every_command_it_names_exists() -> None:
    """Each ``tokencap …`` is a command whose module is there."""
    named = set(re.findall(r"\btokencap ([a-z-]+)\b", README)) & set(COMMANDS)

    assert {"demo", "serve", "simulate", "export"} <= named
    assert [command for command in named if find_spec(COMMANDS[command].module) is None] == []
