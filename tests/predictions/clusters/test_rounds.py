"""A layer whose verdict another seed could turn is measured again; a clear one once."""

from __future__ import annotations

import numpy as np
import pytest

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions import clusters
from polytope_lm.predictions.clusters.rounds import SPREAD, most_rounds, unsteady
from polytope_lm.predictions.clusters.test import clusters_by_label, measured_again
from polytope_lm.seeds import Purpose, derived

FAST = {"k": 8, "resamples": 16, "comparators": False}


def _near_a_bound(world, most: int, **more):
    """Codes and a comparison of theirs that was measured several times: few tokens, so that little is sure."""
    for seed in range(10):
        codes = world("direction", seed=seed, n=300)
        found = clusters(codes, 4, rounds=most, **FAST, **more)
        if found.verdicts[0].rounds == most:
            return codes, found
    return pytest.fail("no world near a bound")


def test_a_verdict_near_a_bound_is_the_mean_of_measurements_with_other_seeds(world) -> None:
    codes, found = _near_a_bound(world, 3)
    seeds = [0, *(derived(0, Purpose.ROUNDS, number) for number in (1, 2))]
    once = [clusters(codes, 4, seed=seed, rounds=1, **FAST | {"resamples": 8 if seed else 16}) for seed in seeds]
    assert once[0].layers[0].differences == found.layers[0].differences
    assert once[0].layers[0].representations == found.layers[0].representations
    for i, cell in enumerate(found.verdicts[0].cells):
        each = [result.verdicts[0].cells[i] for result in once]
        assert {(one.reference, one.score) for one in each} == {(cell.reference, cell.score)}
        assert cell.difference.value == pytest.approx(np.mean([one.difference.value for one in each]))
        squares = [one.difference.sd**2 for one in each]  # of as many halves
        assert cell.difference.sd == pytest.approx(np.sqrt(np.average(squares, weights=[2, 1, 1])))
    assert len({one.verdicts[0].cells for one in once}) == 3
    assert "the verdict's differences are means of 3 measurements" in " ".join(found.notes())
    assert "measurements" not in " ".join(once[0].notes())


def test_once_asked_for_it_only_says_what_another_seed_may_say(world) -> None:
    codes, _ = _near_a_bound(world, 2)
    verdict = clusters(codes, 4, rounds=1, **FAST).verdicts[0]
    assert verdict.rounds == 1
    assert verdict.otherwise
    assert f"other random choices may say {' or '.join(verdict.otherwise)}" in verdict.sentence


def test_a_clear_verdict_is_measured_once(world) -> None:
    found = clusters(world("direction", n=1500), 4, k=12, resamples=20, comparators=False)
    (verdict,) = found.verdicts
    assert (verdict.outcome, verdict.rounds, verdict.otherwise) == ("behind", 1, ())


def test_further_measurements_of_several_labels_are_those_of_each(world) -> None:
    """One near a bound beside another label: as by itself, and as measured apart."""
    codes, alone = _near_a_bound(world, 3)
    rng = np.random.default_rng(1)
    codes.tokens["other"] = np.where(rng.random(len(codes)) < 0.3, codes.tokens["upos"], "class 0")
    together = clusters_by_label(codes, None, ("other", "upos"), rounds=3, **FAST)
    assert together["upos"].layers == alone.layers
    once = clusters_by_label(codes, None, ("other", "upos"), rounds=1, **FAST)
    verdict = once["upos"].verdicts[0]
    for number in (1, 2):
        verdict = verdict.beside(measured_again(codes, once, 4, ("upos",), number)["upos"], SPREAD)
    assert verdict == alone.verdicts[0]


def test_progress_tells_further_measurements(world) -> None:
    told: list[tuple[int, int, str]] = []
    codes, found = _near_a_bound(world, 3)
    clusters(codes, 4, rounds=3, progress=lambda *each: told.append(each), **FAST)
    assert all(done < total for done, total, _ in told)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert sum("again" in what for _, _, what in told) == 2 * sum("again" not in what for _, _, what in told)
    assert unsteady(found.layers, 3) == {}


def test_how_often_goes_by_the_tokens() -> None:
    assert [most_rounds(n) for n in (300, 3000, 6000, 8000, 100_000)] == [16, 16, 4, 2, 2]


@pytest.mark.parametrize("rounds", [0, -1, 1.5, "often"])
def test_no_measurement_at_all_is_refused(world, rounds) -> None:
    with pytest.raises(PolytopeError, match="rounds = "):
        clusters(world("code", n=300), 4, rounds=rounds)
