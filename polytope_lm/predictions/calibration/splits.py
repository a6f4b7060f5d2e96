"""Do the intervals hold with the *real* labels? Two halves of the documents, each put to the test on its own.

Documents are split into disjoint halves A and B, and the whole procedure is run on each with the k of the whole
sample. Both estimate the same difference, so `A - B` should lie within `t sqrt(se_A^2 + se_B^2)` in 95 % of splits, t
with Welch and Satterthwaite's degrees of freedom. (A half against the whole would not do: it is part of it.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import t

from polytope_lm.predictions.calibration.trials import of_the_label, representations, set_up, trial
from polytope_lm.predictions.clusters.result import REFERENCES
from polytope_lm.predictions.clusters.scoring import make_task
from polytope_lm.representations import binary as code
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.predictions.clusters.sampling import Sample
    from polytope_lm.statistics.estimate import Estimate


def part(sample: Sample, documents: Int[np.ndarray, " d"]) -> Sample:
    """Return the tokens of some documents, which are numbered anew."""
    kept = np.isin(sample.documents, documents)
    numbers = pd.factorize(sample.documents[kept])[0].astype(np.int32)
    groups = sample.groups[kept].copy()
    groups[:, 3] = numbers
    summary = replace(sample.summary, tokens=int(kept.sum()), documents=int(numbers.max()) + 1)
    labels = np.unique(sample.labels[kept], return_inverse=True)[1].astype(np.int32)
    return replace(
        sample, rows=sample.rows[kept], labels=labels, token=sample.token[kept], documents=numbers, groups=groups,
        summary=summary,
    )  # fmt: skip


def halves_agree(
    codes: TokenCodes,
    layer: int,
    samples: Mapping[str, Sample],
    number: int,
    *,
    k: int,
    draws: int,
    seed: int,
    resamples: int,
    smallest_effect: float,
) -> dict[str, tuple[bool, ...]]:
    """Return, label by label, which of `CELLS` agree between the halves of one split of the documents.

    Args:
        codes: codes with `u` and `h`.
        layer: the layer.
        samples: the whole sample, by label: the same tokens.
        number: of the split; others come of other numbers.
        k: clusters, those of the whole sample.
        draws: of rate-matched SimHash.
        seed: of every random choice.
        resamples: halves behind each interval.
        smallest_effect: the smallest difference of interest.

    Raises:
        PolytopeError: a half has too few documents, or tokens for k.

    """
    first = next(iter(samples.values()))
    order = np.random.default_rng([seed, number]).permutation(int(first.documents.max()) + 1)
    sides = [np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])]
    found: dict[str, list[tuple[Estimate, ...]]] = {label: [] for label in samples}
    # Only what the cells compare: whether a label can be seen is not asked here.
    compared = [each for each in representations(draws) if each.name in {code.CODE, *REFERENCES}]
    for half, side in enumerate(sides):
        # Two estimates that shared the draws of a random control would agree in what is luck.
        own, bench = derived(seed, Purpose.SIDES, 2 * number + half), None
        for label, sample in samples.items():
            task = make_task(part(sample, side), k, own, resamples)
            # Clusters know no label, so all labels share them.
            bench = replace(bench, task=task) if bench else set_up(codes, layer, task, compared)
            found[label].append(trial(bench, of_the_label(bench), 0, smallest_effect).differences)
    return {
        label: tuple(within(a, b) for a, b in zip(*differences, strict=True)) for label, differences in found.items()
    }


def within(a: Estimate, b: Estimate) -> bool:
    """Return whether two independent estimates agree within `t sqrt(se_a^2 + se_b^2)`."""
    square = a.sd**2 + b.sd**2
    freedom = square**2 / (a.sd**4 / (a.freedom or 1e9) + b.sd**4 / (b.freedom or 1e9))
    return bool(abs(a.value - b.value) <= t.ppf(0.975, freedom) * np.sqrt(square))
