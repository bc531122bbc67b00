"""This project's own lint rules: each reads one file and yields the lines that break the rule."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

Rule = Callable[[str, str], Iterator[str]]
"""Maps a file's path and text to its breaches of the rule, each as ``line: why``."""

MONEY = re.compile(r"nanousd")
SECRET = re.compile(r"(?:^|_)(?:token|secret|password|authorization|credential)$|(?:^|_)api_key$|^key_text$")
CLOCKS = frozenset({"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"})
CLOCK_NAMES = frozenset(clock.rpartition(".")[2] for clock in CLOCKS)
LOGS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
ESTIMATING = ("gateway/repricing/", "gateway/demo/")
"""Rooms that compare amounts with expected values, which are no whole numbers."""

HANDED_ON = frozenset({"Connection", "Row", "RowMapping"})
SQL_ROOMS = ("gateway/ledger/", "gateway/catalog/")


@lru_cache(maxsize=1)
def _syntax(text: str) -> ast.Module:
    """Parse a file once for all rules, which read it one after the other."""
    return ast.parse(text)


def _says(node: ast.AST) -> Iterator[str]:
    """Yield the names, attributes and keys in an expression."""
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Attribute):
            yield each.attr
        elif isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value


def _is_money(node: ast.AST) -> bool:
    return any(MONEY.search(name) and " " not in name for name in _says(node))


def no_float_in_money(path: str, text: str) -> Iterator[str]:
    """In the gateway an amount is never divided by ``/``, combined with a float, or converted to a float."""
    if not path.startswith("gateway/") or path.startswith(ESTIMATING):
        return
    for node in ast.walk(_syntax(text)):
        if isinstance(node, ast.BinOp):
            has_float = any(
                isinstance(side, ast.Constant) and isinstance(side.value, float) for side in (node.left, node.right)
            )
            if (isinstance(node.op, ast.Div) or has_float) and (_is_money(node.left) or _is_money(node.right)):
                yield f"{node.lineno}: an amount meets a float"
        elif (
            isinstance(node, ast.Call) and getattr(node.func, "id", None) == "float" and any(map(_is_money, node.args))
        ):
            yield f"{node.lineno}: an amount becomes a float"


def no_clock_but_clock(path: str, text: str) -> Iterator[str]:
    """Only ``gateway/clock.py`` reads the time of day; all other code gets the clock passed."""
    if path == "gateway/clock.py" or not path.startswith(("gateway/", "pricing/")):
        return
    for node in ast.walk(_syntax(text)):
        if not (isinstance(node, ast.Attribute) and node.attr in CLOCK_NAMES):
            continue
        if ".".join(ast.unparse(node).split(".")[-2:]) in CLOCKS:
            yield f"{node.lineno}: reads the clock"


def no_secret_in_a_log(path: str, text: str) -> Iterator[str]:
    """No variable with the name of a secret is passed to a log."""
    if not path.startswith(("gateway/", "pricing/")):
        return
    for node in ast.walk(_syntax(text)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGS):
            continue
        if ast.unparse(node.func.value) not in {"log", "logger", "logging", "self._log"}:
            continue
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            names = [
                each.id if isinstance(each, ast.Name) else each.attr
                for each in ast.walk(argument)
                if isinstance(each, ast.Name | ast.Attribute)
            ]
            if any(SECRET.search(name) for name in names):
                yield f"{node.lineno}: logs a secret"


def no_sql_outside_its_rooms(path: str, text: str) -> Iterator[str]:
    """Only the ledger and the catalogue use SQL; other rooms may name a ``Connection`` that they pass on."""
    if path.startswith(SQL_ROOMS) or not path.startswith(("gateway/", "pricing/")):
        return
    for node in ast.walk(_syntax(text)):
        if isinstance(node, ast.Import) and any(name.name.startswith("sqlalchemy") for name in node.names):
            yield f"{node.lineno}: imports SQLAlchemy"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
            foreign = sorted({name.name for name in node.names} - HANDED_ON)
            yield from [f"{node.lineno}: imports {name} of SQLAlchemy" for name in foreign]


def no_broad_except_without_a_word(path: str, text: str) -> Iterator[str]:
    """A handler of every exception re-raises it, logs its traceback, or says on its line why it may be dropped."""
    lines = text.splitlines()
    for node in ast.walk(_syntax(text)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if node.type is not None and ast.unparse(node.type) not in {"Exception", "BaseException"}:
            continue
        inside = list(ast.walk(node))
        passes_on = any(isinstance(each, ast.Raise) for each in inside)
        logs = any(isinstance(each, ast.Attribute) and each.attr == "exception" for each in inside)
        if not passes_on and not logs and not re.search(r"#.*- \w", lines[node.lineno - 1]):
            yield f"{node.lineno}: catches everything and does not say why"


def pricing_is_documented(path: str, text: str) -> Iterator[str]:
    """A public function of the pricing library has a docstring, which states the shape of any array arguments."""
    if not path.startswith("pricing/"):
        return
    for node in _syntax(text).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        docstring = ast.get_docstring(node)
        if docstring is None:
            yield f"{node.lineno}: {node.name} has no docstring"
        elif any(
            "Floats" in ast.unparse(each.annotation or ast.Constant("")) for each in node.args.args
        ) and not re.search(r"[Ss]hape|of each|a row|per type", docstring):
            yield f"{node.lineno}: {node.name} does not say the shape of its arrays"


RULES: tuple[Rule, ...] = (
    no_float_in_money,
    no_clock_but_clock,
    no_secret_in_a_log,
    no_sql_outside_its_rooms,
    no_broad_except_without_a_word,
    pricing_is_documented,
)
