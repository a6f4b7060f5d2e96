"""Prediction 2: polytope boundaries lie where meaning changes.

Claim. A path between two prompts of different meaning crosses more boundaries than one between two prompts of
the same meaning (Black et al., "Interpreting Neural Networks through the Polytope Lens", 2022).

Confounder. Prompts that differ in meaning are further apart, and a longer path crosses more of anything:
cosine distance alone can give an AUC of 0.8. And along a line in the MLP's own input crossings *are* the
Hamming distance of the ends' codes. So boundaries carry meaning of their own only if crossings go with it
beyond Euclidean and cosine distance in `x`, `u` and `h`, the path's length, the JS distance of the ends'
next-token distributions, and the endpoint Hamming distance.

Primary cell, fixed before any run: *flip-backs*, the crossings from the path's layer to the last in excess of
endpoint Hamming (of neurons that flip and flip back), as AUC of different against same meaning after
cross-fitted regression on all covariates with overlap weights (see `inference.adjusting`). Given endpoint
Hamming, crossings and flip-backs rank pairs alike, so flip-backs are all of crossings that can be beyond it;
regressing crossings themselves, which correlate with Hamming above .99, would leave the regression's own
error. Where nothing flips back (a last layer without biases), nothing can be beyond, and a lead
is ruled out. In-layer and downstream crossings, raw, matched and regressed, are shown beside it, no verdict.

References. 0.5, which is what the covariates explain; and the same AUC of rate-matched random hyperplanes on
the same `u` along the same path, beyond their own endpoint Hamming: only a lead over these is due to where
training put the boundaries.

Verdict. *Supported* where the lower bounds of both differences exceed the smallest effect of interest (0.02
AUC); *behind*, *no lead* or *mixed* (see `statistics.verdict`); *inconclusive* otherwise, with the number of pairs that
would settle it; Holm over layers. Intervals: percentile bootstrap over groups (items, words), over pairs
where there are fewer than 10 groups. Controls beside it: untrained and weight-permuted models on the same
pairs, and labels permuted within groups.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from polytope_lm import pairs as pair_sets
from polytope_lm.controls import weights
from polytope_lm.controls.planes import DRAWS
from polytope_lm.errors import PolytopeError
from polytope_lm.files import expand
from polytope_lm.models.loading import select_sites
from polytope_lm.pairs import Pair, Pairs, Problem
from polytope_lm.predictions.boundaries.judging import MIN_PAIRS, Measured, judge
from polytope_lm.predictions.boundaries.measure import measure_pair, measure_pairs, planes_of
from polytope_lm.predictions.boundaries.result import BoundariesResult, BoundarySettings
from polytope_lm.result import reproducible, versions
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.verdict import over_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from polytope_lm.controls.planes import Planes
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.boundaries.measure import Row
    from polytope_lm.predictions.boundaries.result import LayerBoundaries

CONTROLS = {"permuted": weights.permuted, "untrained": weights.untrained}
REAL = "real"
Rows = tuple[dict[int, dict[int, dict[str, float]]], list[Problem]]
"""One model's numbers by layer and line, and the pairs that it could not measure."""


@reproducible("plm.predictions.boundaries")
def boundaries(  # noqa: PLR0913 -- each is a choice that moves a number
    model: Model,
    pairs: Pairs | Iterable[Pair] | str | Path = "builtin",
    layers: int | Sequence[int] | str | None = None,
    *,
    kind: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
    smallest_effect: float = 0.02,
    draws: int = DRAWS,
    controls: Sequence[str] = ("permuted", "untrained"),
    shuffles: int = 100,
    keep: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> BoundariesResult:
    """Put prediction 2 to the test on pairs of prompts.

    Args:
        model: a causal model.
        pairs: `builtin`, a JSON-lines file, `Pairs`, or a list of `Pair`.
        layers: where the paths lie: one layer, several, `all`, or None for a quarter, a half and three
            quarters of the depth.
        kind: which code of a gated MLP: `gate` (the default), `up` or `gate+up`.
        seed: of every random choice.
        resamples: bootstrap resamples behind each interval.
        smallest_effect: the smallest difference of interest, in AUC.
        draws: of rate-matched hyperplanes; 0 leaves that reference out.
        controls: models with other weights to measure beside: `permuted`, `untrained`; each takes as long as
            the model itself.
        shuffles: label permutations within groups; 0 leaves that control out.
        keep: a directory for finished pairs; a run with the same arguments goes on from there.
        progress: told `(done, total, what)` after each pair.

    Raises:
        PolytopeError: a model that reads both ways, an unknown control, no readable pair, fewer than 20, one
            label only, or too few groups with both.

    """
    found = _pairs(pairs)
    sites = _check(model, layers, kind, controls, found)
    settings = BoundarySettings(
        pairs="; ".join(part for part in (found.name, found.note) if part), kind=sites[0].kind, at="resid_mid",
        shape="line", seed=seed, resamples=resamples, smallest_effect=smallest_effect, draws=draws,
        controls=tuple(controls), shuffles=shuffles,
    )  # fmt: skip
    job = _Job(tuple(found), sites, settings, expand(keep, "keep") if keep is not None else None, progress)
    twins = ((name, CONTROLS[name](model, seed=derived(seed, Purpose.PAIR_WEIGHTS))) for name in controls)
    measured = {name: job.measure(name, one) for name, one in chain([(REAL, model)], twins)}
    used, bad = _used(found, measured)
    judged = [job.judge(site, measured, used) for site in sites]
    verdicts = over_layers([layer.verdict for layer in judged])
    return BoundariesResult(
        settings=settings, provenance=model.provenance, command="", timings=job.timings,
        layers=tuple(replace(layer, verdict=new) for layer, new in zip(judged, verdicts, strict=True)),
        problems=tuple(sorted((*found.problems, *bad), key=lambda problem: problem.line)),
        versions=versions("numpy", "scipy", "scikit-learn", "torch", "transformers"),
        numbers=_numbers(measured, used),
    )  # fmt: skip


def seconds(
    model: Model,
    pairs: Pairs | Iterable[Pair] | str | Path,
    layers: int | Sequence[int] | str | None = None,
    *,
    kind: str | None = None,
    controls: Sequence[str] = (),
) -> float:
    """Return about how long `boundaries` takes: a pair of middling length is measured twice, the second time counts."""
    found = _pairs(pairs)
    sites = _check(model, layers, kind, controls, found)
    middling = sorted(found, key=lambda pair: sum(map(len, pair.prompts)))[len(found) // 2]
    spent = 0.0
    for site in sites:
        measure_pair(model, middling, site.layer, kind=site.kind)  # compiles
        began = time.perf_counter()
        measure_pair(model, middling, site.layer, kind=site.kind)
        spent += time.perf_counter() - began
    return spent * len(found) * (1 + len(controls))


@dataclass
class _Job:
    """What is the same for all models, and how long they took."""

    pairs: tuple[Pair, ...]
    sites: tuple[Site, ...]
    settings: BoundarySettings
    keep: Path | None
    progress: Callable[[int, int, str], None] | None
    timings: dict[str, float] = field(default_factory=dict)

    def measure(self, name: str, model: Model) -> Rows:
        """Measure all pairs in one model: rows by layer and line, and the pairs that it can't read."""
        rows: dict[int, dict[int, Row]] = {}
        problems: list[Problem] = []
        planes = self._planes(model) if name == REAL and self.settings.draws else None
        for site in self.sites:
            began = time.perf_counter()
            kept = self.keep / f"{name}-{site.key}.jsonl" if self.keep is not None else None
            rows[site.layer], here = measure_pairs(
                model, self.pairs, site.layer, kind=site.kind, planes=planes, seed=self.settings.seed,
                kept=kept, told=self._told(name, site.layer),
            )  # fmt: skip
            problems += here
            self.timings[f"layer {site.layer}: {name}"] = time.perf_counter() - began
        return rows, problems

    def judge(self, site: Site, measured: dict[str, Rows], used: Sequence[Pair]) -> LayerBoundaries:
        """Put one layer to the test."""
        began = time.perf_counter()
        here = {name: _table(rows[site.layer], used) for name, (rows, _) in measured.items()}
        judged = judge(site, here.pop(REAL), here, self.settings)
        self.timings[f"layer {site.layer}: inference"] = time.perf_counter() - began
        return judged

    def _planes(self, model: Model) -> Planes:
        layers = range(min(site.layer for site in self.sites), model.n_layers)
        seed = derived(self.settings.seed, Purpose.PLANES)
        return planes_of(model, self.pairs, layers, self.sites[0].kind, draws=self.settings.draws, seed=seed)

    def _told(self, name: str, layer: int) -> Callable[[int], None]:
        number = [site.layer for site in self.sites].index(layer)
        before = ((REAL, *self.settings.controls).index(name) * len(self.sites) + number) * len(self.pairs)
        total = (1 + len(self.settings.controls)) * len(self.sites) * len(self.pairs)

        def told(done: int) -> None:
            if self.progress is not None:
                self.progress(before + done, total, f"layer {layer}, {name}")

        return told


def _used(found: Pairs, measured: dict[str, Rows]) -> tuple[list[Pair], list[Problem]]:
    """Return the pairs that every model could measure (all are compared on the same ones), and the others."""
    bad = {problem.line: problem for _, problems in measured.values() for problem in problems}
    used = [pair for pair in found if pair.line not in bad]
    if len(used) < MIN_PAIRS:
        why = f"; {next(iter(bad.values()))}" if bad else ""
        raise PolytopeError(f"{len(used)} pairs are too few to test; give at least {MIN_PAIRS}{why}")
    return used, list(bad.values())


def _pairs(given: Pairs | Iterable[Pair] | str | Path) -> Pairs:
    if isinstance(given, Pairs):
        return given
    if isinstance(given, (str, Path)):
        return pair_sets.builtin() if str(given) == "builtin" else pair_sets.read(given)
    listed = tuple(replace(pair, line=number) for number, pair in enumerate(given, 1))
    return Pairs(f"a list of {len(listed)} pairs", listed)


def _check(
    model: Model, layers: int | Sequence[int] | str | None, kind: str | None, controls: Sequence[str], found: Pairs
) -> tuple[Site, ...]:
    unknown = [name for name in controls if name not in CONTROLS]
    if unknown:
        raise PolytopeError(f"no control {unknown[0]!r}; there are {', '.join(CONTROLS)}")
    if not model.causal:
        raise PolytopeError(f"{model.name} reads both ways: a path would change every position; use a causal model")
    if len({pair.same for pair in found}) < 2:
        kinds = "of the same meaning" if len(found) and found[0].same else "of different meaning"
        raise PolytopeError(f"{found.name}: {len(found)} pairs, all {kinds}; the test needs both")
    if layers is None:
        layers = sorted({round(share * (model.n_layers - 1)) for share in (0.25, 0.5, 0.75)})
    sites = select_sites(model, layers, kind)
    if sites[0].kind == "custom":
        raise PolytopeError(f"{sites[0].hook} is a declared site, and paths lie at MLPs: leave kind out")
    return sites


def _table(rows: dict[int, Row], used: Sequence[Pair]) -> Measured:
    groups = _groups(used)
    return Measured(
        frame=pd.DataFrame([rows[pair.line] for pair in used]),
        different=np.array([not pair.same for pair in used]),
        group=np.array([groups[pair.group] for pair in used]),
    )


def _groups(used: Sequence[Pair]) -> dict[str, int]:
    return {group: number for number, group in enumerate(sorted({pair.group for pair in used}))}


def _numbers(measured: dict[str, Rows], used: Sequence[Pair]) -> pd.DataFrame:
    """Return one row a pair, layer and model: numbers only."""
    groups = _groups(used)
    rows = [
        {"line": pair.line, "group": groups[pair.group], "same": pair.same, "layer": layer, "weights": name}
        | here[pair.line]
        for name, (layers, _) in measured.items()
        for layer, here in layers.items()
        for pair in used
    ]
    return pd.DataFrame(rows)
