"""The README and the pages behind it are true: links lead to files, tables match the code."""

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

README = ROOT / "README.md"
README_LINES_MAX = 120
REFERENCE = ROOT / "docs" / "reference"
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
PATH = re.compile(r"\.(?:py|lua|md|toml|yml|sql)$|/$")
NOT_HERE = {"tokencap.toml", "migrations/versions/000N_what.py"}
"""A file of the operator, and a placeholder for the next migration."""
DOCUMENTS = [path for path in written_files() if path.suffix == ".md"]
NOT_FOR_CALLERS = {"internal_error", "caller_gone"}


def rows(page: str) -> list[list[str]]:
    """Return the cells of the first table on a page of the reference, without its head."""
    table = (REFERENCE / f"{page}.md").read_text("utf-8").partition("\n|")[2].partition("\n\n")[0]
    lines = [line for line in f"|{table}".splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def missing(path: Path, text: str) -> list[str]:
    """Return the named files and folders that exist neither beside the document, nor in the gateway or the root."""
    named = [name for name in re.findall(r"`((?:[\w.-]+/)*[\w.-]+/?)`", text) if name not in NOT_HERE]
    named = [name for name in named if PATH.search(name) or ("/" in name and name.split("/")[0] in FOLDERS)]
    places = (path.parent, ROOT / "gateway", ROOT)
    return [name for name in named if not any((place / name).exists() for place in places)]


def links_of(path: Path) -> list[tuple[str, str]]:
    """Return the file and the section of every link of a document to this repository; either may be empty."""
    links = re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", FENCED.sub("", path.read_text("utf-8")))
    return [(link, anchor) for link, anchor in links if not re.match(r"[a-z]+:", link)]


def anchors(path: Path) -> set[str]:
    """Return GitHub's anchors for the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text("utf-8")), re.MULTILINE)
    shown = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    names = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in shown]
    earlier = [names[:place].count(name) for place, name in enumerate(names)]
    return {f"{name}-{before}" if before else name for name, before in zip(names, earlier, strict=True)}


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_relative_links_and_named_files_exist(path: Path) -> None:
    """Every file and folder that a document links to in this repository, or names, exists."""
    text = FENCED.sub("", path.read_text("utf-8"))
    links = [link for link, _ in links_of(path) if link]

    assert [link for link in links if not (path.parent / link).exists()] == []
    assert missing(path, text) == []


@pytest.mark.parametrize(
    "name", ["gateway/tide.py", "tide.py", "holds/tide/", "lua/tide.lua", "docs/tide.md", "tests/tide"]
)
def test_a_file_that_is_not_there_is_found(name: str) -> None:
    assert missing(
        ROOT / "gateway" / "README.md", f"`journey.py` `serving/`, see `{name}` and `serving/journey.py`"
    ) == [
        "journey.py",
        name,
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_a_link_to_a_section_finds_it(path: Path) -> None:
    """The part after ``#`` in a link is a heading of the linked document."""
    sections = [((path.parent / link if link else path), anchor) for link, anchor in links_of(path) if anchor]

    assert [anchor for page, anchor in sections if anchor not in anchors(page)] == []


def test_an_anchor_is_what_github_makes_of_a_heading(tmp_path: Path) -> None:
    """Lower case, dashes for spaces, no punctuation; a line in a code block is no heading."""
    page = tmp_path / "page.md"
    page.write_text("# One, `two` and [three](four.md)\n```sh\n# five\n```\n## Six-seven?\n## Six-seven?\n", "utf-8")

    assert anchors(page) == {"one-two-and-three", "six-seven", "six-seven-1"}


def test_the_readme_is_one_page_that_leads_to_every_other() -> None:
    """The README has at most 120 lines, and links lead from it to each page of the documentation."""
    reached, waiting = set[Path](), [README]
    while waiting:
        page = waiting.pop().resolve()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            waiting += [page.parent / link for link, _ in links_of(page) if link]

    assert len(README.read_text("utf-8").splitlines()) <= README_LINES_MAX
    assert [name_of(path) for path in DOCUMENTS if path.is_relative_to(ROOT / "docs") and path not in reached] == []


def test_the_table_of_settings_is_the_settings() -> None:
    """Every setting has a row, every row is a setting, and the defaults are the code's."""
    written = {codes(name)[0]: (codes(default) or [""])[0] for name, default, _ in rows("settings")}
    fields = {str(field.validation_alias or f"tokencap_{name}"): field for name, field in Settings.model_fields.items()}
    defaults = {name.upper(): field.default for name, field in fields.items()}

    listed = {
        name: default if not isinstance(default, tuple) else ",".join(map(str, default))
        for name, default in defaults.items()
    }
    texts = {name: str(default or "") for name, default in listed.items()}
    assert written == {name: text.lower() if text == "True" else text for name, text in texts.items()}


def test_the_table_of_refusals_has_every_code() -> None:
    """The table lists each code of the gateway's own refusals, with its status."""
    written = {
        (int(status), code)
        for statuses, named, _ in rows("refusals")
        for status in re.findall(r"\d+", statuses)
        for code in codes(named)
    }
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if not {one.__module__ for one in kind.__subclasses__()} & {errors.__name__}]
    raised = {(kind.status, kind.code) for kind in kinds if issubclass(kind, errors.TokencapError)}
    raised = {(status, code) for status, code in raised if code not in NOT_FOR_CALLERS}

    assert raised <= written
    assert {code for _, code in written} == {code for _, code in raised}


def test_the_table_of_metrics_is_the_metrics() -> None:
    """Every metric has a row with its labels, in the code's order."""
    written = [(name, tuple(codes(labels))) for names, labels, _ in rows("metrics") for name in codes(names)]

    assert written == [(metric.name, metric.labels) for metric in METRICS]


def test_the_page_of_fields_is_the_tables() -> None:
    """docs/fields.md is generated from the tables that the gateway uses."""
    assert (ROOT / "docs" / "fields.md").read_text("utf-8") == page()


def test_the_table_of_formats_has_every_format_with_its_limits() -> None:
    """The reference names each route, and its fields for output limits, which the gateway sets to the grant."""
    written = {codes(route)[0].removeprefix("POST "): set(codes(limits)) for route, limits, _ in rows("formats")}

    assert written.keys() == OURS.keys()
    assert all(limits <= OURS[route] for route, limits in written.items())


def test_every_command_that_a_page_names_exists() -> None:
    """The module of each named ``tokencap`` command exists."""
    pages = "".join(path.read_text("utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"\btokencap ([a-z-]+)\b", pages)) & set(COMMANDS)

    assert {"demo", "serve", "simulate", "export"} <= named
    assert [command for command in named if find_spec(COMMANDS[command].module) is None] == []


ADDITIONS = re.findall(
    r"^## (Adding [^\n]+)\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
)
PRODUCT = [
    path
    for path in written_files()
    if path.name != "README.md"
    and not path.is_relative_to(ROOT / "tests")
    and path.is_relative_to(ROOT)
    and name_of(path).split("/")[0] in {"gateway", "pricing", "docs", "deploy"}
]


@pytest.mark.parametrize("section", [pytest.param(text, id=title) for title, text in ADDITIONS])
def test_a_list_of_files_to_touch_is_the_files_that_speak_of_its_example(section: str) -> None:
    """Each list names every file that such an addition touches, and no other."""
    examples = codes(section.partition("Example: ")[2].partition("\n")[0])
    listed = {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in codes(row)}

    speaking = {
        path for path in PRODUCT if any(one in f"# {name_of(path)}\n{path.read_text('utf-8')}" for one in examples)
    }

    assert examples
    assert listed == {name_of(path) for path in speaking}


def test_five_additions_are_described() -> None:
    assert [title for title, _ in ADDITIONS] == [
        f"Adding {what}" for what in ("a dialect", "an export format", "a tier field", "a metric", "a setting")
    ]


TASKS = re.findall(r"^\| (.*?\*\*.*?) \| (`.*?) \|$", (ROOT / "docs" / "where.md").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("task", "files"), TASKS, ids=[re.findall(r"\*\*(.+?)\*\*", task)[0] for task, _ in TASKS])
def test_the_first_file_to_open_has_the_word_of_the_task(task: str, files: str) -> None:
    """A search for the word in file names and first sentences finds the file."""
    first = codes(files)[0]
    opening = (ROOT / first).read_text("utf-8").partition("\n\n")[0]

    assert all(word.lower() in f"{first} {opening}".lower() for word in re.findall(r"\*\*(.+?)\*\*", task))


def test_a_newcomer_finds_more_than_ten_tasks() -> None:
    assert len(TASKS) > 10
