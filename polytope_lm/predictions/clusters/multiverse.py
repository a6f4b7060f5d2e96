"""Every choice at once: layers, labels, k, seeds, clusterers, representations. Shown, never a verdict.

A verdict rests on one cell that was fixed before any run: one label, one k, k-medoids, one seed. Whoever
doubts that choice can see here what the others would have given: each cell's AMI, the share of the tokens
that its clusterer threw away, the sizes of its clusters, and how far the code is ahead of each cosine of
`h` and of rate-matched SimHash under the *same* choices (Steegen et al., "Increasing transparency through
a multiverse analysis", Perspectives on Psychological Science 2016; Simonsohn, Simmons & Nelson,
"Specification curve analysis", Nature Human Behaviour 2020). Cells share tokens and codes: their number is no
sample size, and a share of them that is ahead is no p-value.

A cell of seed s, k and k-medoids has the AMI of `clusters(seed=s, k=k)`. Distances are computed once a layer,
set of tokens, representation and draw, and shared by all clusterers, k and labels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.clusterers import Clusterer, Space, clusterers, get_clusterer
from polytope_lm.predictions.clusters.result import SIMHASH
from polytope_lm.predictions.clusters.sampling import choose, clusters_for, label_names, layers_of
from polytope_lm.predictions.clusters.scoring import BUILT_IN
from polytope_lm.predictions.clusters.specifications import Cell, Draw, LeftOut, Multiverse, with_leads
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.directions import COSINES
from polytope_lm.representations.registry import Representation, get
from polytope_lm.result import reproducible, versions
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.statistics.agreement import Partition


@dataclass(frozen=True)
class _Tokens:
    """Tokens of one seed, and the labels that all of them have."""

    seed: int
    rows: Int[np.ndarray, " n"]
    labels: dict[str, Int[np.ndarray, " n"]]


@dataclass(frozen=True)
class _Sweep:
    """What is swept, and what has been found so far."""

    ks: tuple[int, ...] | None
    clusterers: tuple[Clusterer, ...]
    representations: tuple[Representation, ...]
    cells: list[Cell] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    def choices(self, n: int) -> Iterator[tuple[Clusterer, int | None]]:
        """Yield each clusterer with each k that it takes."""
        ks = default_ks(n) if self.ks is None else self.ks
        for clusterer in self.clusterers:
            for k in ks if clusterer.takes_k else (None,):
                yield clusterer, k

    def leave_out(self, what: str, why: object) -> None:
        """Note what could not be computed, once."""
        note = LeftOut(what, str(why))
        if note not in self.left_out:
            self.left_out.append(note)

    def took(self, what: str, since: float) -> None:
        """Add up the seconds of a step."""
        self.timings[what] = self.timings.get(what, 0.0) + time.perf_counter() - since


@reproducible("plm.predictions.multiverse")
@asked
def multiverse(
    codes: TokenCodes,
    layers: int | Sequence[int] | None = None,
    *,
    labels: Sequence[str] | str = ("upos",),
    ks: Sequence[int] | None = None,
    sample_seeds: Sequence[int] = (0, 1, 2),
    clusterers: Sequence[str] = (),
    representations: Sequence[str] = (),
    tokens: int = 6000,
    progress: Callable[[int, int, str], None] | None = None,
) -> Multiverse:
    """Cluster some codes in every way at once.

    Args:
        codes: codes in memory or a store, captured with `keep=("u", "h")`; without, what can run, runs.
        layers: one layer, several, or all (None).
        labels: labels that clusters are scored against.
        ks: numbers of clusters; by default half, once and twice that of `clusters`.
        sample_seeds: seeds; each chooses tokens, first medoids and random controls as `clusters(seed=)` does.
        clusterers: registered ones; by default k-medoids, average linkage and hdbscan.
        representations: registered ones, beside both cosines of `h` and rate-matched SimHash, which are
            always there to be compared with; by default the built-in ones.
        tokens: compare at most this many.
        progress: told `(done, total, what)` before each representation.

    Raises:
        PolytopeError: an unknown layer, label, clusterer or representation, a k that fits no set of tokens,
            or nothing that could be computed.

    """
    names = (labels,) if isinstance(labels, str) else tuple(dict.fromkeys(labels))
    wanted = layers_of(codes, layers)
    sweep = _sweep(ks, clusterers, representations)
    sets = _token_sets(codes, names, tuple(dict.fromkeys(sample_seeds)), tokens, sweep)
    _check_ks(sweep, sets)
    _fill(sweep, codes, wanted, sets, progress)
    if not sweep.cells:
        raise PolytopeError(f"nothing could be computed; {sweep.left_out[0].what}: {sweep.left_out[0].why}")
    return Multiverse(
        cells=with_leads(sweep.cells),
        left_out=tuple(sweep.left_out),
        settings={
            "layers": list(wanted),
            "labels": list(names),
            "ks": None if sweep.ks is None else list(sweep.ks),
            "sample_seeds": list(dict.fromkeys(sample_seeds)),
            "tokens": tokens,
            "clusterers": [each.name for each in sweep.clusterers],
            "representations": [each.name for each in sweep.representations],
        },
        provenance=dict(codes.provenance),
        versions=versions("numpy", "scipy", "numba", "kmedoids", "fast-hdbscan"),
        command="",
        timings=sweep.timings,
    )


def default_ks(n: int) -> tuple[int, ...]:
    """Return half, once and twice the k that `clusters` takes for n tokens, those that fit."""
    k = clusters_for(n)
    return tuple(each for each in dict.fromkeys((max(2, k // 2), k, 2 * k)) if each < n)


def _sweep(ks: Sequence[int] | None, names: Sequence[str], representations: Sequence[str]) -> _Sweep:
    built_in = [each.name for each in clusterers()[:3]]
    wanted = dict.fromkeys((*(representations or BUILT_IN), *COSINES, SIMHASH))
    return _Sweep(
        ks=None if ks is None else tuple(dict.fromkeys(ks)),
        clusterers=tuple(get_clusterer(name) for name in dict.fromkeys(names or built_in)),
        representations=tuple(get(name) for name in wanted),
    )


def _token_sets(
    codes: TokenCodes, labels: Sequence[str], seeds: Sequence[int], tokens: int, sweep: _Sweep
) -> list[_Tokens]:
    """Choose each seed's tokens as `clusters` does; labels that all the same tokens have share them."""
    sets: list[_Tokens] = []
    for seed in seeds:
        for label in labels:
            try:
                sample = choose(codes, label, tokens=tokens, seed=seed)
            except PolytopeError as error:
                if label not in label_names(codes):
                    raise
                sweep.leave_out(f"label {label!r}, seed {seed}", error)
                continue
            for each in sets:
                if each.seed == seed and np.array_equal(each.rows, sample.rows):
                    each.labels[label] = sample.labels
                    break
            else:
                sets.append(_Tokens(seed, sample.rows, {label: sample.labels}))
    if not sets:
        note = sweep.left_out[0] if sweep.left_out else LeftOut("the sweep", "no label and no seed is given")
        raise PolytopeError(f"nothing to cluster; {note.what}: {note.why}")
    return sets


def _check_ks(sweep: _Sweep, sets: Sequence[_Tokens]) -> None:
    """Refuse a k that fits no set of tokens before anything is computed."""
    most = max(len(each.rows) for each in sets)
    for k in sweep.ks or ():
        if not 2 <= k < most:
            raise PolytopeError(
                f"k = {k} clusters of {most} tokens; k must be at least 2 and below the number of tokens"
            )


def _fill(
    sweep: _Sweep,
    codes: TokenCodes,
    layers: Sequence[int],
    sets: Sequence[_Tokens],
    progress: Callable[[int, int, str], None] | None,
) -> None:
    """Add all cells; a layer's arrays are read once for each set of tokens."""
    steps = [(layer, chosen, each) for layer in layers for chosen in sets for each in sweep.representations]
    arrays: LayerArrays | None = None
    for done, (layer, chosen, representation) in enumerate(steps):
        if progress is not None:
            progress(done, len(steps), f"layer {layer}, seed {chosen.seed}: {representation.name}")
        if arrays is None or representation is sweep.representations[0]:
            arrays = LayerArrays(codes, layer, chosen.rows)
        _add(sweep, arrays, chosen, representation)


def _add(sweep: _Sweep, arrays: LayerArrays, tokens: _Tokens, representation: Representation) -> None:
    """Add all cells of one representation of some tokens: every clusterer, k and label, from each draw."""
    where = f"layer {arrays.site.layer}, seed {tokens.seed}, {representation.name}"
    found: dict[tuple[str, int | None, str], list[Draw]] = {}
    for number in range(representation.draws):
        start = time.perf_counter()
        try:
            rows = representation.rows(arrays, seed=derived(tokens.seed, Purpose.REPRESENTATION, number))
        except PolytopeError as error:
            sweep.leave_out(where, error)
            return
        sweep.took("representations", start)
        for name, k, made in _partitions(sweep, Space(rows, representation.name), tokens.seed, where):
            for label, gold in tokens.labels.items():
                draw = Draw(made.ami(gold).ami, made.noise_share, made.clusters, made.largest_share)
                found.setdefault((name, k, label), []).append(draw)
    sweep.cells.extend(
        Cell(
            layer=arrays.site.layer,
            site=arrays.site.key,
            label=label,
            clusterer=name,
            k=k,
            seed=tokens.seed,
            representation=representation.name,
            role=representation.role,
            n=len(tokens.rows),
            draws=tuple(draws),
        )
        for (name, k, label), draws in found.items()
        if len(draws) == representation.draws
    )
    for (name, k, _), draws in found.items():
        empty = sum(draw.ami is None for draw in draws)
        if empty:
            what = f"AMI of {where}, {name}" + (f", k = {k}" if k else "")
            sweep.leave_out(what, f"every token is noise in {empty} of {len(draws)} draws")


def _partitions(sweep: _Sweep, space: Space, seed: int, where: str) -> Iterator[tuple[str, int | None, Partition]]:
    """Yield every clusterer's partitions of one space; one that can not is left out with its reason."""
    for clusterer, k in sweep.choices(len(space)):
        start = time.perf_counter()
        try:
            made = clusterer(space, k or 0, derived(seed, Purpose.MEDOIDS))
        except PolytopeError as error:
            sweep.leave_out(f"{where}, {clusterer.name}" + (f", k = {k}" if k else ""), error)
            continue
        sweep.took(clusterer.name, start)
        yield clusterer.name, k, made
