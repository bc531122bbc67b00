"""The glossary is true: each term has a sentence and a file, and no identifier uses a retired word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.files import ROOT, name_of, python_files

PAGE = (ROOT / "docs" / "glossary.md").read_text("utf-8")
TERMS = re.findall(r"^\| ([^|`]+) \| ([^|]+) \| `([^`]+)` \|$", PAGE, re.MULTILINE)
RETIRED = {
    word: instead
    for words, instead in re.findall(
        r"^\| (`[^|]+) \| ([^|]+) \|$", PAGE.partition("## Retired words")[2], re.MULTILINE
    )
    for word in re.findall(r"`([^`]+)`", words)
}
SOURCES = [path for path in python_files() if name_of(path).startswith(("gateway/", "pricing/"))]
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def identifiers(path: str, text: str) -> Iterator[str]:
    """Yield a file's name, and the names of its classes, functions, arguments, attributes, variables and imports."""
    yield Path(path).stem
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.rpartition(".")[2]


def retired_words(path: str, text: str) -> set[str]:
    """Return the retired words in a file's identifiers; ``*Given`` is the last word of a class's name."""
    found = set()
    for name in identifiers(path, text):
        words = WORD.findall(name)
        found |= {word.lower() for word in words if word.lower() in RETIRED}
        if words and name.lstrip("_")[:1].isupper() and not name.isupper():
            found |= {f"*{words[-1]}"} & RETIRED.keys()
    return found


def test_no_identifier_uses_a_retired_word() -> None:
    """The glossary lists the word to use instead beside each retired word."""
    texts = ((name_of(path), path.read_text("utf-8")) for path in SOURCES)

    assert [(name, word, RETIRED[word]) for name, text in texts for word in retired_words(name, text)] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("gateway/holds/tide.py", ""),
        ("gateway/x.py", "class TideMark: pass"),
        ("gateway/x.py", "async def read_tide(): pass"),
        ("gateway/x.py", "def f(*, tide_ms=0): pass"),
        ("gateway/x.py", "TIDE = 1"),
        ("gateway/x.py", "self._tide = 1"),
        ("gateway/x.py", "f(tide=1)"),
        ("gateway/x.py", "from gateway import tide as mark, lag as tide"),
    ],
)
def test_a_retired_word_is_found_wherever_it_stands(path: str, text: str) -> None:
    assert retired_words(path, text) == {"tide"}


def test_a_word_inside_another_and_a_word_in_a_text_are_let_be() -> None:
    assert retired_words("gateway/x.py", "def untidelike(): return 'tide'  # tide") == set()


def test_every_term_has_one_sentence() -> None:
    """A definition is a sentence that fits on a line; no term is defined twice."""
    terms = [term for term, _, _ in TERMS]

    assert len(TERMS) > 50
    assert [term for term, sentence, _ in TERMS if not re.fullmatch(r"[A-Z(`].{10,120}\.", sentence)] == []
    assert sorted(set(terms)) == sorted(terms)


def test_every_row_of_the_page_is_a_term_or_a_retired_word() -> None:
    """A row in another form would escape the other tests."""
    rows = [
        line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| term", "| retired"))
    ]

    assert len(rows) == len(TERMS) + len(re.findall(r"^\| `", PAGE, re.MULTILINE))


@pytest.mark.parametrize(
    ("term", "path"), [(term, path) for term, _, path in TERMS], ids=[term for term, _, _ in TERMS]
)
def test_a_term_is_where_the_glossary_says(term: str, path: str) -> None:
    """The file exists, and its text or path contains a word of the term."""
    text = f"{path} {(ROOT / path).read_text('utf-8')}".lower()

    assert [word for word in re.findall(r"[a-z]{3,}", term.lower()) if word[: max(len(word) - 3, 3)] in text]
