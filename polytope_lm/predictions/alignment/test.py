"""Are boundaries dense where meaning changes along the same path: crossings against the model's own output.

Claim. The density of polytope boundaries reflects semantic boundaries (Black et al., "Interpreting Neural
Networks through the Polytope Lens", 2022): on the way from one prompt's activation to another's, most
boundaries are crossed where the next-token distribution changes most.

Score. The percentile of the crossing density, among the path's own steps, at the step of the largest JS
distance. Primary: crossings of the path's layer and all later ones, per equal step.

Comparators. *Other pairs' peaks* (the cross-pair null): crossings and output both change most in mid-path,
whatever the prompts, so that against a circular shift an untrained model scores .8; another pair's peak has
that hump, too. *The residual's own speed*: how far the last block's output moves in each step, beyond other
pairs' peaks likewise. Whatever moves fast crosses much; boundaries must tell more.

Where there is no plateau there is nothing to align: the verdict speaks of the pairs whose output is sharp,
`max d'(t) / d(1)` above 3 (a straight line has 1), which is a property of the output alone and is settled before
any crossing is looked at. All pairs stand beside, without a verdict. Crossings are counted per equal step and per
length in `u`. *Beyond the residual's speed* conditions on a mediator: boundaries may act through the speed, so
that failing this cell does not say that they do nothing.

Controls. The model as it began (untrained), beside it; densities per unit length (in the path's own space,
in `u`, in the output, in the residual), per layer of the path and later ones: shown, no verdict.

Verdict. *Supported* where the density is above both comparators by more than the smallest effect of interest
(.02), per step and per length, *behind*, *no lead* or *mixed*, *inconclusive* otherwise; *not
testable* with fewer than 30 sharp pairs. Intervals:
percentile bootstrap over groups of pairs. Holm over layers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import PolytopeError
from polytope_lm.files import expand
from polytope_lm.models.logits import check_logits
from polytope_lm.pairs import Problem
from polytope_lm.paths.many import crossings_of_pairs
from polytope_lm.paths.profile import STEPS
from polytope_lm.predictions.alignment import result as names
from polytope_lm.predictions.alignment.result import (
    PER_LENGTH,
    PRIMARY,
    SHARP,
    SPEED,
    AlignedProfile,
    AlignmentResult,
    LayerAlignment,
)
from polytope_lm.result import reproducible, versions
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.estimate import Resampled, resampled
from polytope_lm.statistics.peaks import cross_pair, percentiles, raw
from polytope_lm.statistics.verdict import Cell, decide, over_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from polytope_lm.models.model import Model
    from polytope_lm.paths.profile import PairProfiles, Profile
    from polytope_lm.statistics.estimate import Estimate
    from polytope_lm.statistics.verdict import Verdict

_DENSITIES = {
    PRIMARY: ("all", "step"),
    "crossings of the path's layer, per step": ("own", "step"),
    "crossings of later layers, per step": ("later", "step"),
    "crossings of all layers, per length in the path's space": ("all", "path"),
    PER_LENGTH: ("all", "u"),
    "crossings of all layers, per JS distance of the output": ("all", "output"),
    "crossings of all layers, per length of the residual": ("all", "residual"),
}
_SHARP = 2.0


@reproducible("plm.predictions.alignment")
def alignment(  # noqa: PLR0913 - each is a choice that moves a number
    model: Model,
    pairs: Iterable[Any],
    layers: int | Sequence[int],
    *,
    at: str = "resid_mid",
    kind: str | None = None,
    shape: str = "line",
    evaluations: int | None = None,
    steps: int = STEPS,
    untrained: bool = True,
    smallest_effect: float = 0.02,
    resamples: int = 1000,
    seed: int = 0,
    to: str | Path | None = None,
    workers: int = 2,
    progress: Callable[[int, int, str], None] | None = None,
) -> AlignmentResult:
    """Test whether crossings are dense where the next-token distribution changes most.

    Args:
        model: a causal model with logits.
        pairs: two prompts each, `(a, b)` or a `polytope_lm.pairs.Pair`, whose `group` is resampled as a
            whole; at least 30 that are sharp for a verdict.
        layers: where the paths lie, one test a layer.
        at: their space, as in `plm.path`.
        kind: which code of a gated MLP.
        shape: `line` or `arc`.
        evaluations: forward evaluations of each path at most; 40, behind ReLUs 160.
        steps: equal steps of the profiles.
        untrained: test the model as it began, too, as a control.
        smallest_effect: the smallest difference of interest in percentile.
        resamples: of groups of pairs, behind each interval.
        seed: of the resamples, and of the untrained model.
        to: a directory for a file of profiles a layer and model: a run that was stopped goes on from there.
        workers: paths at a time.
        progress: told paths done, paths in all, and the time left in words.

    Raises:
        PolytopeError: no next-token distribution, whatever `crossings_of_pairs` raises, or too few pairs or
            groups to resample.

    """
    check_logits(model)
    unread = getattr(pairs, "problems", ())
    pairs = list(pairs)
    asked = [layers] if isinstance(layers, (int, np.integer)) else list(layers)
    follow = partial(
        crossings_of_pairs, at=at, kind=kind, shape=shape, evaluations=evaluations, steps=steps, workers=workers
    )
    runs = _models(model, seed, untrained=untrained)
    found = []
    for number, (one, suffix) in enumerate(run for run in runs for _ in asked):
        layer = asked[number % len(asked)]
        file = None if to is None else expand(to, "to") / f"L{layer:02d}{suffix}.jsonl"
        told = _shifted(progress, number * len(pairs), len(runs) * len(asked) * len(pairs))
        found.append(follow(one, pairs, layer, to=file, progress=told))
    groups = [getattr(pair, "group", number) for number, pair in enumerate(pairs)]
    result = align(
        found[: len(asked)], groups, twins=found[len(asked) :], smallest_effect=smallest_effect,
        resamples=resamples, seed=seed,
    )  # fmt: skip
    return replace(result, problems=tuple(sorted({*unread, *result.problems}, key=lambda one: one.line)))


def _models(model: Model, seed: int, *, untrained: bool) -> list[tuple[Model, str]]:
    """Return the models whose paths are followed, each with what its files' names end in."""
    if not untrained:
        return [(model, "")]
    from polytope_lm.controls.weights import untrained as as_it_began  # noqa: PLC0415 - it is big

    return [(model, ""), (as_it_began(model, seed), ".untrained")]


def align(
    profiles: Sequence[PairProfiles],
    groups: Sequence[Any],
    *,
    twins: Sequence[PairProfiles] = (),
    smallest_effect: float = 0.02,
    resamples: int = 1000,
    seed: int = 0,
) -> AlignmentResult:
    """Test profiles that were computed before.

    Args:
        profiles: of the same pairs, one set a layer.
        groups: each pair's group.
        twins: the same pairs' in the untrained model, in the same order, or none.
        smallest_effect: the smallest difference of interest.
        resamples: behind each interval.
        seed: of the resamples.

    Raises:
        PolytopeError: sets that do not fit, or too few pairs or groups to resample.

    """
    sets = _fitting(profiles, twins, groups)
    settings = {
        "smallest_effect": smallest_effect, "resamples": resamples, "seed": seed, "profiles": len(groups),
        "runs": [{"layer": one.site.layer, **one.settings} for one in sets],
    }  # fmt: skip
    draws = derived(seed, Purpose.HALVES)
    layers, theirs, leads, sharp = [], [], [], []
    plateaus: list[LayerAlignment | None] = []
    for number, one in enumerate(profiles):
        twin = twins[number] if twins else None
        both = sorted(_usable(one) if twin is None else _usable(one) & _usable(twin))
        numbers = np.unique([str(groups[i]) for i in both], return_inverse=True)[1]
        weights = resampled(numbers, resamples, seed=draws)
        measured, beyond = _measured(one, both, numbers, weights)
        layers.append(measured)
        chosen = [i for i in sorted(_usable(one)) if _sharpness(one, i) > SHARP]
        sharp.append(len(chosen))
        plateaus.append(_alone(one, chosen, groups, resamples, draws) if len(chosen) >= names.LEAST_PAIRS else None)
        if twin is not None:
            control, twins_beyond = _measured(twin, both, numbers, weights)
            theirs.append(control)
            leads.append((beyond - twins_beyond).by_percentiles())
    return AlignmentResult(
        settings=settings, layers=tuple(layers), twins=tuple(theirs), leads=tuple(leads), command="",
        verdicts=_verdicts(plateaus, smallest_effect), sharp=tuple(sharp), plateaus=tuple(plateaus),
        versions=versions("numpy", "scipy", "torch", "transformers"),
        problems=tuple({bad.line: Problem(bad.line, bad.message) for one in sets for bad in one.bad}.values()),
    )  # fmt: skip


def _fitting(
    profiles: Sequence[PairProfiles], twins: Sequence[PairProfiles], groups: Sequence[Any]
) -> list[PairProfiles]:
    """Return all sets of profiles, checked to be of the same pairs."""
    sets = [*profiles, *twins]
    if not profiles or any(len(one) != len(groups) for one in sets) or len(twins) not in {0, len(profiles)}:
        raise PolytopeError(
            f"{len(profiles)} sets of profiles, {len(twins)} of a twin and {len(groups)} groups do not fit: "
            "give one set a layer, of the same pairs, and a group for each pair"
        )
    return sets


def _usable(profiles: PairProfiles) -> set[int]:
    """Return the numbers of the pairs whose output moves."""
    return {number for number, one in profiles.good if one.js.sum() > 0 and one.counts.sum() > 0}


def _sharpness(profiles: PairProfiles, number: int) -> float:
    one = profiles.profiles[number]
    return 0.0 if one is None else one.sharpness


def _alone(
    profiles: PairProfiles, used: list[int], groups: Sequence[Any], resamples: int, seed: int
) -> LayerAlignment | None:
    """Measure some pairs of a layer; None where they are of one group."""
    numbers = np.unique([str(groups[i]) for i in used], return_inverse=True)[1]
    if numbers.max() == 0:
        return None
    return _measured(profiles, used, numbers, resampled(numbers, resamples, seed=seed))[0]


def _measured(
    profiles: PairProfiles, used: Sequence[int], groups: np.ndarray, weights: np.ndarray
) -> tuple[LayerAlignment, Resampled]:
    """Measure one layer; the second is the primary density's percentile beyond other pairs'."""
    good: list[Profile] = [one for i in used if (one := profiles.profiles[i]) is not None]
    peaks = np.array([one.sharpest for one in good])

    def beyond(rows: np.ndarray) -> tuple[Resampled, Resampled]:
        ranks = percentiles(rows)
        return raw(ranks, peaks, weights), cross_pair(ranks, peaks, groups, weights)

    speed = beyond(np.array([one.residual for one in good]))
    slow = speed[0] - speed[1]
    rows, leads = [], []
    for name, (layers, per) in _DENSITIES.items():
        if (per == "u" and "u" not in good[0].lengths) or (layers == "later" and len(good[0].layers) == 1):
            continue
        own, null = beyond(np.array([one.density(layers, per) for one in good]))
        leads.append(own - null)
        rows.append(_row(name, own, null, (leads[-1] - slow).by_percentiles()))
    rows.append(_row(SPEED, *speed, None))
    sharpness = np.array([one.sharpness for one in good])
    mean = Resampled(float(sharpness.mean()), weights @ sharpness / weights.sum(axis=1))
    crossings = sum(int(one.crossings.sum()) for one in good)
    missed = sum(int(np.maximum(one.missed, 0).sum()) for one in good)
    measured = LayerAlignment(
        model=str(profiles.settings["model"]), site=profiles.site, pairs=len(good),
        groups=len(np.unique(groups)), left_out=len(profiles) - len(good), profiles=tuple(rows),
        sharpness=mean.by_percentiles(), sharp=float((sharpness > _SHARP).mean()),
        argmax_changes=float(np.mean([one.argmax_changes for one in good])),
        missed_estimate=missed / crossings, js_error=max(one.js_error for one in good),
    )  # fmt: skip
    return measured, leads[0]


def _row(name: str, own: Resampled, null: Resampled, beyond_speed: Estimate | None) -> AlignedProfile:
    raw_rank, null_rank, ahead = (each.by_percentiles() for each in (own, null, own - null))
    return AlignedProfile(name, raw_rank, null_rank, ahead, beyond_speed)


def _verdicts(plateaus: Sequence[LayerAlignment | None], smallest_effect: float) -> tuple[Verdict | None, ...]:
    decided = []
    for layer in plateaus:
        if layer is None:
            continue
        cells = []
        for row in layer.profiles:
            if row.name not in {PRIMARY, PER_LENGTH}:
                continue
            how = "" if row.name == PRIMARY else ", per length in u"
            cells.append(Cell(names.OTHER_PAIRS, names.SCORE + how, row.beyond_pairs))
            if row.beyond_speed is not None:
                cells.append(Cell(SPEED, names.SCORE + how, row.beyond_speed))
        decided.append(
            decide(
                cells, place=f"Layer {layer.layer}", documents=layer.pairs, smallest_effect=smallest_effect,
                premises=str(layer.site.premises), premises_met=layer.site.premises.met, unit="pairs",
            )
        )  # fmt: skip
    corrected = iter(over_layers(decided) if decided else ())
    return tuple(None if layer is None else next(corrected) for layer in plateaus)


def _shifted(
    progress: Callable[[int, int, str], None] | None, before: int, total: int
) -> Callable[[int, int, str], None] | None:
    """Tell one run's progress as a part of all runs'."""
    if progress is None:
        return None
    return lambda done, _pairs, words: progress(before + done, total, words)
