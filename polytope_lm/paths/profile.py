"""Crossings and changes of the output along one path, in equal steps: where boundaries and meaning change.

For steps from `t_k` to `t_k+1`:

- crossings of each layer in the step;
- output change: Jensen-Shannon distance (square root of the divergence in bits) between the next-token
  distributions at its ends;
- residual: `|r(t_k+1) - r(t_k)|`, `r` the last block's output: the speed that the output moves at anyway;
- logit lens, if asked for: the same JS distance, read off each later layer's output.

Density is crossings per length of a step, and the length is named: `step` (equal ones, together 1), `path`
(Euclidean, in the path's own space), `u` (Euclidean, in what the MLP reads), `output` (JS distance) or
`residual`.

Stable regions (Janiak et al., "Characterizing stable regions in the residual stream of LLMs", 2024): with
`d(t) = |r(t) - r(0)|`, sharpness is `max_k (d(t_k+1) - d(t_k)) / (t_k+1 - t_k) / d(1)`. A straight line
scores 1; with n equal steps it saturates at n, one jump, so n is always reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.files import expand
from polytope_lm.models.sites import Site
from polytope_lm.paths.resume import FORMAT, encoded, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pandas as pd
    from jaxtyping import Float, Int

STEPS = 33
LENGTHS = ("step", "path", "u", "output", "residual")
_ROUND = 9  # significant digits that are kept in files
_INTS = ("layers", "counts", "crossings", "on", "hamming", "returning", "missed", "top")
_FLOATS = ("js", "residual", "distance", "lens")


@dataclass(frozen=True, eq=False, repr=False)
class Profile:
    """One path's crossings and changes in equal steps; no text.

    Attributes:
        layer: the path's own layer.
        length: the path's length in its own space.
        layers: the layers searched, the path's own first, `[L]`.
        counts: crossings of each layer in each step, `[L, steps]`.
        crossings: crossings of each layer, `[L]`.
        on: how many of them turn a neuron on, `[L]`.
        hamming: bits in which the ends differ, `[L]`.
        returning: crossings of neurons that cross more than once, `[L]`.
        missed: crossings that may be missing, `[L]`; -1 where nobody knows.
        lengths: Euclidean length of each step by name: `path`, in the path's own space, and `u`.
        js: output change of each step, `[steps]`; empty without logits or if later layers weren't followed.
        top: id of the likeliest next token at the steps' ends, `[steps + 1]`; empty as `js`.
        js_error: largest JS distance between the interpolated distribution and the model's own at the
            held-out points.
        residual: length of each step in the last block's output, `[steps]`; empty if later layers weren't
            followed.
        distance: `d(t)` at the steps' ends, `[steps + 1]`; empty as `residual`.
        lens: output change of each step by the logit lens at the path's own and each later layer's output,
            `[n_layers - layer, steps]`; empty if not asked for.

    """

    layer: int
    length: float
    layers: Int[np.ndarray, " L"]
    counts: Int[np.ndarray, "L steps"]
    crossings: Int[np.ndarray, " L"]
    on: Int[np.ndarray, " L"]
    hamming: Int[np.ndarray, " L"]
    returning: Int[np.ndarray, " L"]
    missed: Int[np.ndarray, " L"]
    lengths: Mapping[str, Float[np.ndarray, " steps"]]
    js: Float[np.ndarray, " _"] = field(default_factory=lambda: np.empty(0))
    top: Int[np.ndarray, " _"] = field(default_factory=lambda: np.empty(0, np.int64))
    js_error: float = 0.0
    residual: Float[np.ndarray, " _"] = field(default_factory=lambda: np.empty(0))
    distance: Float[np.ndarray, " _"] = field(default_factory=lambda: np.empty(0))
    lens: Float[np.ndarray, "_ _"] = field(default_factory=lambda: np.empty((0, 0)))

    def __repr__(self) -> str:
        own, later = self.crossings[0], self.crossings[1:].sum()
        found = f"{own:,} crossings in layer {self.layer}"
        found += f", {later:,} in {len(self.layers) - 1} later ones" * (len(self.layers) > 1)
        sharp = f"; sharpness {self.sharpness:.2f} of at most {self.steps}" if len(self.distance) else ""
        return f"Profile: {found}, in {self.steps} steps{sharp}"

    @property
    def steps(self) -> int:
        """How many equal steps."""
        return int(self.counts.shape[1])

    @property
    def sharpness(self) -> float:
        """`max d'(t) / d(1)`, at most `steps`; NaN where the output doesn't move or wasn't followed."""
        if not len(self.distance) or self.distance[-1] == 0:
            return float("nan")
        return sharpness(self.distance)

    @property
    def sharpest(self) -> int:
        """The step of the output's largest change: JS distance, or `|dr|` where the model has no logits.

        Raises:
            PolytopeError: later layers weren't followed.

        """
        change = self.js if len(self.js) else self.residual
        if not len(change):
            raise PolytopeError("this profile has no output: follow later layers with downstream=True")
        return int(np.argmax(change))

    @property
    def argmax_changes(self) -> int:
        """How often the likeliest next token changes from one step's end to the next."""
        return int((self.top[1:] != self.top[:-1]).sum())

    def density(self, layers: str = "all", per: str = "step") -> Float[np.ndarray, " steps"]:
        """Return the crossings of each step over its length.

        Args:
            layers: `own` (the path's layer), `later` or `all`.
            per: the length, one of `LENGTHS`; where a step has none, its density is 0.

        Raises:
            PolytopeError: unknown layers or length, or one that this profile hasn't.

        """
        chosen = {"own": slice(0, 1), "later": slice(1, None), "all": slice(None)}
        if layers not in chosen:
            raise PolytopeError(f"layers={layers!r}: give {', '.join(chosen)}")
        there = {"step": np.full(self.steps, 1 / self.steps), "output": self.js, "residual": self.residual}
        there |= dict(self.lengths)
        if per not in LENGTHS or not len(there.get(per, ())):
            known = ", ".join(name for name in LENGTHS if len(there.get(name, ())))
            raise PolytopeError(f"per={per!r} is no length of this path; there are: {known}")
        counts, length = self.counts[chosen[layers]].sum(axis=0), there[per]
        dense: np.ndarray = np.divide(counts, length, out=np.zeros(self.steps), where=length > 0)
        return dense

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer: crossings, on, hamming, returning, missed."""
        import pandas as pd  # noqa: PLC0415 - a table is wanted less often than the numbers

        names = ("crossings", "on", "hamming", "returning", "missed")
        return pd.DataFrame({"layer": self.layers, **{name: getattr(self, name) for name in names}})

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data, floats to 9 significant digits; `from_dict` is its inverse."""
        return {
            "layer": self.layer,
            "length": _rounded(self.length),
            "js_error": _rounded(self.js_error),
            **{name: getattr(self, name).tolist() for name in _INTS},
            **{name: _rounded(getattr(self, name).tolist()) for name in _FLOATS},
            "lengths": {name: _rounded(value.tolist()) for name, value in self.lengths.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """Rebuild from `to_dict`'s data."""
        fields: dict[str, Any] = {name: np.array(data[name], dtype=np.int64) for name in _INTS}
        fields |= {name: np.array(data[name], dtype=np.float64) for name in _FLOATS}
        fields["counts"] = fields["counts"].reshape(len(fields["layers"]), -1)
        fields["lens"] = fields["lens"].reshape(len(data["lens"]), -1) if data["lens"] else np.empty((0, 0))
        fields["lengths"] = {name: np.array(value, dtype=np.float64) for name, value in data["lengths"].items()}
        return cls(int(data["layer"]), float(data["length"]), js_error=float(data["js_error"]), **fields)


def sharpness(distance: Float[np.ndarray, " points"]) -> float:
    """Return `max d'(t) / d(1)` of distances from the start at equally spaced points; see the module's text.

    Args:
        distance: `d(t)`, `d(0) = 0`, at least two points.

    Raises:
        PolytopeError: fewer than two points, or an end as far as the start, where nothing can be said.

    """
    if len(distance) < 2 or not distance[-1] > 0:
        raise PolytopeError(
            f"sharpness needs at least 2 points and d(1) > 0, not {len(distance)} points and "
            f"d(1) = {distance[-1] if len(distance) else 0:g}"
        )
    return float(np.diff(distance).max() * (len(distance) - 1) / distance[-1])


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.{_ROUND}g}")


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
        bad = {one.pair: {"line": one.line, "bad": one.message} for one in self.bad}
        lines = [
            {"pair": number, **(bad[number] if profile is None else {"profile": profile.to_dict()})}
            for number, profile in enumerate(self.profiles)
        ]
        return {"format": FORMAT, **header(self.site, self.settings, len(self)), "lines": lines}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PairProfiles:
        """Rebuild from `to_dict`'s data."""
        entries = data["lines"]
        bad = tuple(BadPair(one["pair"], one["line"], one["bad"]) for one in entries if "bad" in one)
        profiles = tuple(None if "bad" in one else Profile.from_dict(one["profile"]) for one in entries)
        return cls(Site.from_dict(data["site"]), data["settings"], profiles, bad)

    def save(self, path: str | Path) -> Path:
        """Write the file of JSON lines, the same that `crossings_of_pairs(to=...)` writes."""
        target, head = expand(path), self.to_dict()
        lines = head.pop("lines")
        target.write_bytes(encoded(head, lines))
        return target

    @classmethod
    def load(cls, path: str | Path) -> PairProfiles:
        """Read a finished file.

        Raises:
            PolytopeError: no such file, one that holds something else, or one that is not whole.

        """
        head, entries = read(path)
        if len(entries) != head["pairs"]:
            raise PolytopeError(
                f"{str(path)!r} has {len(entries):,} of {head['pairs']:,} pairs: run what wrote it again"
            )
        try:
            return cls.from_dict({**head, "lines": entries})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise PolytopeError(f"{str(path)!r} holds no profiles of pairs ({what})") from error


def header(site: Site, settings: Mapping[str, Any], pairs: int) -> dict[str, Any]:
    """Return what a run over pairs was asked, as its file's first line says it."""
    return {"pairs": pairs, "site": site.to_dict(), "settings": dict(settings)}


def _row(number: int, one: Profile) -> dict[str, Any]:
    row: dict[str, Any] = {"pair": number, "length": one.length}
    for name, values in (("", one.crossings), ("_returning", one.returning), ("_hamming", one.hamming)):
        row |= {f"own{name}": int(values[0]), f"later{name}": int(values[1:].sum())}
    row["missed"] = -1 if (one.missed < 0).any() else int(one.missed.sum())
    if not len(one.residual):
        return row
    row |= {"output": float(one.js.sum()), "sharpest": one.sharpest, "argmax_changes": one.argmax_changes}
    return row | {"sharpness": one.sharpness, "residual": float(one.residual.sum()), "js_error": one.js_error}
