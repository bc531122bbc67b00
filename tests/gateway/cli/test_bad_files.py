"""Whatever stands in the files that commands are given, the answer is one sentence and a documented exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.main import run

TOKEN = "1f8c9a0be77d4c52a6f3e9d0"
DEEP = 200_000

FILES: dict[str, bytes | None] = {
    "none.json": None,
    "empty.json": b"",
    "binary.json": b"\xff\xfe\x00",
    "mark.json": b"\xef\xbb\xbf{",
    "deep.json": b"[" * DEEP,
    "nested.json": b'{"a":' * DEEP,
    "list.json": b"[]",
    "number.json": b"5",
    "text.json": b'"menu"',
    "nan.json": b'{"types": NaN, "tiers": [NaN]}',
    "infinite.json": b'{"types": 1e999, "tiers": [-Infinity]}',
    "half.json": b'{"version": "\\ud800", "types": [], "tiers": []}',
    "long.json": b'{"version": %s, "types": %s}' % (b"9" * 5_000, b"9" * 5_000),
    "huge.json": b'{"version": "v", "types": 1%s, "tiers": 1}' % (b"0" * 30),
    "kinds.json": b'{"version": true, "types": {"a": 1}, "tiers": {"b": 2}, "totals": [], "certificate": 5}',
    "nul.json": b'{"version": "a\\u0000b", "types": null, "tiers": null}',
    "bytes.json": b'{"version": "\x00"}',
    "folder.json": None,
}
COMMANDS = {
    "verify": "price verify {}",
    "menu": "price menu --market {} --out out.json",
    "report": "price report --market {} --menu {} --out out.html",
    "fit": "price fit --usage {} --menu {} --out out.json",
    "add": f"customers add {{}} --url http://127.0.0.1:9 --token {TOKEN} --out keys.csv",
}
GOOD_WITHOUT_ROWS = {("add", "empty.json")}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_none_is_one_sentence(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, no fault of ours, and no file is left that looks like an answer."""
    content, path = FILES[name], tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif name == "folder.json":
        path.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    words = COMMANDS[command].format(path, path).replace("out.", f"{out}/out.").replace("keys.", f"{out}/keys.").split()

    code = run(words)

    output = capsys.readouterr().err
    if (command, name) in GOOD_WITHOUT_ROWS:
        assert code == 0
        return
    assert code in (1, 2, 3)
    assert len(output.splitlines()) == 1
    assert "fault of its own" not in output
    assert not list(out.iterdir())


@pytest.mark.parametrize("name", ["none.csv", "folder.csv", "nul.csv", "wide.csv", "digits.csv", "column.csv"])
def test_a_table_that_is_none_is_one_sentence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells that are too long for any reader, numbers that are too long for any limit, columns that there are not."""
    contents = {
        "nul.csv": "na\x00me\nx\n",
        "wide.csv": f"name\n{'x' * 200_000}\n",
        "digits.csv": f"name,requests_per_minute\nx,{'9' * 5_000}\n",
        "column.csv": f"{'y' * 5_000}\nx\n",
    }
    path = tmp_path / name
    if name in contents:
        path.write_text(contents[name])
    elif name == "folder.csv":
        path.mkdir()

    code = run(["customers", "add", str(path), "--url", "http://127.0.0.1:9", "--token", TOKEN, "--out", "-"])

    output = capsys.readouterr().err
    assert code in (2, 3)
    assert len(output.splitlines()) == 1
    assert "fault of its own" not in output
    assert len(output) < 1_000


@pytest.mark.parametrize("out", ["folder", "nowhere/out.json", "out\x00.json"])
def test_a_place_that_cannot_be_written_is_one_sentence(
    out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    code = run(["price", "starter", "chat", "--out", str(tmp_path / out)])

    output = capsys.readouterr().err
    assert code in (2, 3)
    assert len(output.splitlines()) == 1
    assert "fault of its own" not in output


def test_a_record_of_other_kinds_is_counted_not_computed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A usage file of nothing but bad records is refused with what was set aside."""
    usage, menu = tmp_path / "usage.jsonl", tmp_path / "menu.json"
    usage.write_text("".join(json.dumps({"id": kind, "time": kind}) + "\n" for kind in (1, None, [], {}, "x", True)))
    assert run(["price", "starter", "chat", "--out", str(tmp_path / "market.json")]) == 0
    words = ["--market", str(tmp_path / "market.json"), "--tiers", "1", "--out", str(menu)]
    assert run(["price", "menu", *words]) == 0
    capsys.readouterr()

    code = run(["price", "fit", "--usage", str(usage), "--menu", str(menu), "--out", str(tmp_path / "out.json")])

    output = capsys.readouterr().err
    assert code in (1, 2)
    assert "fault of its own" not in output
