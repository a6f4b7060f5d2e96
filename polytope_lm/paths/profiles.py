"""Profiles of many pairs' paths, and the file of JSON lines that keeps them: killed anywhere, it goes on.

The first line says what was asked of which model, and a digest of the pairs; then one line a pair, in order,
written once. A last line that was cut is dropped and computed again, so that a run that was stopped and begun
again leaves the same bytes as one that wasn't. No prompt is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site
from polytope_lm.paths.profile import Profile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

FORMAT = 1


@dataclass(frozen=True)
class BadPair:
    """A pair that gave no path: its number from 0, its line in the pairs' file from 1, and why."""

    pair: int
    line: int
    message: str

    def __str__(self) -> str:
        return f"pair {self.pair} (line {self.line}): {self.message}"


@dataclass(frozen=True, eq=False, repr=False)
class PairProfiles:
    """Profiles of the paths of many pairs in one layer.

    Attributes:
        site: where the paths lie.
        settings: everything that moves a number: model, revision, space, shape, evaluations, digest of the
            pairs, ...
        profiles: one a pair, in order; None for a bad pair.
        bad: the bad pairs.

    """

    site: Site
    settings: Mapping[str, Any]
    profiles: tuple[Profile | None, ...]
    bad: tuple[BadPair, ...]

    def __len__(self) -> int:
        return len(self.profiles)

    def __repr__(self) -> str:
        failed = f", {len(self.bad)} of them bad" if self.bad else ""
        where = f"{self.settings['shape']} in {self.settings['at']} of layer {self.site.layer}"
        return f"PairProfiles: {len(self):,} pairs{failed}; {where}; {self.settings['model']}"

    @property
    def good(self) -> Iterator[tuple[int, Profile]]:
        """Number and profile of each pair that gave one."""
        return ((number, one) for number, one in enumerate(self.profiles) if one is not None)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a good pair.

        Columns: `pair`, `length`; `own` and `later` crossings, how many of each belong to neurons that cross
        more than once (`own_returning`, `later_returning`), the ends' Hamming distances (`own_hamming`,
        `later_hamming`), `missed` at most (-1: unknown); and where later layers were followed `output` (sum
        of JS distances), `sharpest` (the step of the largest), `argmax_changes`, `sharpness`, `residual`
        (length of the last block's output's way) and `js_error`.
        """
        import pandas as pd  # noqa: PLC0415 - a table is wanted less often than the numbers

        return pd.DataFrame([_row(number, profile) for number, profile in self.good])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; `from_dict` is its inverse."""
        return {
            **header(self.site, self.settings, len(self)),
            "lines": [line(self, i) for i in range(len(self))],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PairProfiles:
        """Rebuild from `to_dict`'s data."""
        entries = data["lines"]
        bad = tuple(BadPair(one["pair"], one["line"], one["bad"]) for one in entries if "bad" in one)
        profiles = tuple(None if "bad" in one else Profile.from_dict(one["profile"]) for one in entries)
        return cls(Site.from_dict(data["site"]), data["settings"], profiles, bad)

    def save(self, path: str | Path) -> Path:
        """Write the file of JSON lines, the same that `crossings_of_pairs(to=...)` writes."""
        target = Path(path)
        lines = [header(self.site, self.settings, len(self)), *(line(self, i) for i in range(len(self)))]
        target.write_bytes(b"".join(encoded(one) for one in lines))
        return target

    @classmethod
    def load(cls, path: str | Path) -> PairProfiles:
        """Read a finished file.

        Raises:
            PolytopeError: no such file, one that holds something else, or one that is not finished.

        """
        head, entries, _ = read(Path(path))
        if len(entries) < head["pairs"]:
            raise PolytopeError(
                f"{str(path)!r} has {len(entries):,} of {head['pairs']:,} pairs: run what wrote it again"
            )
        return cls.from_dict({**head, "lines": entries})


def header(site: Site, settings: Mapping[str, Any], pairs: int) -> dict[str, Any]:
    """Return the first line's data."""
    return {"format": FORMAT, "pairs": pairs, "site": site.to_dict(), "settings": dict(settings)}


def entry(number: int, line_number: int, outcome: Profile | str) -> dict[str, Any]:
    """Return a pair's line: its profile, or why it has none."""
    if isinstance(outcome, str):
        return {"pair": number, "line": line_number, "bad": outcome}
    return {"pair": number, "profile": outcome.to_dict()}


def line(result: PairProfiles, number: int) -> dict[str, Any]:
    """Return the line of one pair of a result."""
    profile = result.profiles[number]
    if profile is not None:
        return entry(number, number + 1, profile)
    bad = next(one for one in result.bad if one.pair == number)
    return entry(number, bad.line, bad.message)


def encoded(data: Mapping[str, Any]) -> bytes:
    """Return one line of the file."""
    return (json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n").encode()


def read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Return the header, the pairs' lines that are whole, and where in the file they end.

    Raises:
        PolytopeError: no such file, or it holds something else.

    """
    try:
        data = path.read_bytes()
        end = data.rfind(b"\n") + 1
        head, *entries = [json.loads(one) for one in data[:end].splitlines()]
        if head["format"] != FORMAT or [one["pair"] for one in entries] != list(range(len(entries))):
            raise ValueError("another format, or lines out of order")  # noqa: TRY301
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise PolytopeError(
            f"{str(path)!r} holds no profiles of pairs ({what}): name another file"
        ) from error
    return head, entries, end


def resumed(path: Path, head: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of an earlier run of the same job, and drop a last one that was cut.

    Raises:
        PolytopeError: the file is another job's.

    """
    first = encoded(head)
    data = path.read_bytes() if path.exists() else b""
    if first.startswith(data):  # nothing yet, or a cut header
        path.write_bytes(first)
        return []
    there, entries, end = read(path)
    if there != json.loads(first):
        differ = _differences(there, json.loads(first))
        raise PolytopeError(f"{str(path)!r} holds another run's pairs ({differ}): name another file")
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
    return entries


def _differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Say in which settings two headers differ."""
    flat: Sequence[dict[str, Any]] = [{**one, **one["settings"]} for one in (there, asked)]
    names = [name for name in flat[1] if flat[0].get(name) != flat[1][name] and name != "settings"]
    return ", ".join(
        f"{name}: {str(flat[0].get(name))[:40]}, asked {str(flat[1][name])[:40]}" for name in names
    )


def _row(number: int, one: Profile) -> dict[str, Any]:
    row: dict[str, Any] = {"pair": number, "length": one.length}
    for name, values in (("", one.crossings), ("_returning", one.returning), ("_hamming", one.hamming)):
        row |= {f"own{name}": int(values[0]), f"later{name}": int(values[1:].sum())}
    row["missed"] = -1 if (one.missed < 0).any() else int(one.missed.sum())
    if not len(one.residual):
        return row
    row |= {"output": float(one.js.sum()), "sharpest": one.sharpest, "argmax_changes": one.argmax_changes}
    return row | {
        "sharpness": one.sharpness,
        "residual": float(one.residual.sum()),
        "js_error": one.js_error,
    }
