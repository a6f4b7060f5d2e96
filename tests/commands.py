"""Calling the command line as a user would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from typer.testing import CliRunner

from polytope_lm.cli import app

MODEL = "tiny-gpt2"
NASTY = "\x1b]0;owned\x07\x1b[31mred\x1b[0m"
"""What a corpus would say to a terminal that listens."""
MAIN = "from polytope_lm.cli import main; main()"

SECTION = (Path(__file__).parents[1] / "docs" / "reference.md").read_text().partition("## What `--json` prints")[2]
DOCUMENTED = {
    kind: set(re.findall(r"`(\w+)`", keys))
    for kind, keys in re.findall(r"^\| `([a-z ]+)` \| [^|]+ \| ([^|]+) \|$", SECTION, re.MULTILINE)
}
"""The keys that the reference promises, of each kind of JSON."""


def run(*arguments: object) -> SimpleNamespace:
    """Run one command in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)


def printed(found: SimpleNamespace, kind: str | None = None) -> dict[str, Any]:
    """Read what a command printed under `--json`: of the documented shape, and of this kind."""
    data: dict[str, Any] = json.loads(found.out)
    assert list(data)[:2] == ["schema", "kind"]
    assert data["schema"] == 1
    assert DOCUMENTED[data["kind"]] <= set(data), data["kind"]
    assert kind in {None, data["kind"]}
    return data


def refused(*arguments: object) -> str:
    """Run a command that must fail by the book: exit code 1, one line of error on stderr, nothing on stdout.

    Before it stands at most the line in which a long job tells its cost.
    """
    result = run(*arguments)
    assert result.code == 1, (result.out, result.err)
    assert result.out == ""
    *before, error = result.err.splitlines()
    assert len(before) <= 1, result.err
    assert all(line.startswith(("capture: ", "diff: ", "test ")) for line in before), result.err
    assert error.startswith("error: ")
    assert "Traceback" not in result.err
    assert "unforeseen" not in result.err
    return error


def misused(*arguments: object) -> str:
    """Run a command that is used wrongly: exit code 2, one line on stderr, nothing on stdout."""
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.count("\n") == 1
    assert result.err.startswith("error: ")
    return result.err


def command_line(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own, in a pipe."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )
