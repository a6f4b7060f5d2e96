"""A page's tables, read cell by cell: a number that is shown stands for all that round to it."""

from __future__ import annotations

import re

NUMBER = "[\u2212+]?[0-9,]*[.]?[0-9]+"


def table(text: str, below: str) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the first table below some words, which must stand there once."""
    assert text.count(below) == 1, below
    match = re.search(r"(?:^\|.*\|$\n)+", text.partition(below)[2], re.MULTILINE)
    assert match, below
    head, rule, *rows = ([c.strip() for c in line[1:-1].split("|")] for line in match[0].splitlines())
    assert all(set(cell) <= set("-:") for cell in rule), below
    return head, rows


def numbers(cell: str) -> list[float]:
    return [value for value, _ in _shown(cell)]


def _shown(cell: str) -> list[tuple[float, int]]:
    """Return each number of a cell and how many of its digits stand behind the point."""
    found = [each.replace("\u2212", "-").replace(",", "") for each in re.findall(NUMBER, cell)]
    return [(float(each), len(each.partition(".")[2])) for each in found]


def says(cell: str, *values: float) -> None:
    """Fail unless the cell's numbers are these values, each rounded as it is shown; a half may go either way."""
    shown = _shown(cell)
    assert len(shown) == len(values), (cell, values)
    for (number, digits), value in zip(shown, values, strict=True):
        assert abs(number - value) <= 0.5 * 10.0**-digits + 1e-9, (cell, values)
