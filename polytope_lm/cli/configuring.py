"""`polytope-lm --config run.toml COMMAND`: options from a file, a table a command.

    [capture]
    layers = [0, 8]
    keep = "u,h"

    [test.clusters]
    label = "upos"

What the command line says goes before the file. Options have their names without dashes in front; a list is the same
as its parts with commas between them.
"""

import tomllib
from pathlib import Path
from typing import Any

from polytope_lm.errors import PolytopeError, brief
from polytope_lm.files import MEGABYTE, expand, read_bytes


def configured(path: Path, commands: Any) -> dict[str, Any]:
    """Read a file's options, by command and parameter.

    Raises:
        PolytopeError: no such file, no TOML, a command or an option that there is not, or a value of a kind that no
            option takes.

    """
    place = expand(path, "--config")
    try:
        found = tomllib.loads(read_bytes(place, "configuration", MEGABYTE).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolytopeError(f"{place}: no TOML ({error}); see `polytope-lm --help`") from None
    return _table(place, found, commands, "")


def _table(place: Path, found: dict[str, Any], commands: Any, above: str) -> dict[str, Any]:
    """Read the tables of a group of commands."""
    out: dict[str, Any] = {}
    for name, table in found.items():
        command = commands.commands.get(name)
        called = f"{above}{name}"
        if command is None or not isinstance(table, dict):
            there = ", ".join(f"[{above}{each}]" for each in commands.commands)
            raise PolytopeError(f"{place}: {called} is no table of a command; there are {there}")
        out[name] = _table(place, table, command, f"{called}.") if hasattr(command, "commands") else {}
        if not hasattr(command, "commands"):
            out[name] = _options(place, table, command, called)
    return out


def _options(place: Path, table: dict[str, Any], command: Any, called: str) -> dict[str, Any]:
    """Read one command's options, by the names of its parameters."""
    names: dict[str, str] = {}
    for one in command.params:
        for option in (*one.opts, *one.secondary_opts):
            names[option.lstrip("-")] = names[one.name.replace("_", "-")] = one.name
    out: dict[str, Any] = {}
    for option, value in table.items():
        name = names.get(option) or names.get(option.replace("_", "-"))
        if name is None:
            there = ", ".join(sorted(set(names) - {"help", "h"}))
            raise PolytopeError(f"{place}: [{called}] has no option {option!r}; there are {there}")
        several = isinstance(value, list) and all(isinstance(each, (str, int)) for each in value)
        if not several and not isinstance(value, (str, int, float, bool)):
            raise PolytopeError(
                f"{place}: [{called}] {option} = {brief(value)}: give text, a number or a list of these"
            )
        out[name] = ",".join(map(str, value)) if several else value
    return out
