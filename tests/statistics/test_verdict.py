from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from polytope_lm.statistics.estimate import Estimate, Resampled
from polytope_lm.statistics.verdict import ALPHA, Cell, Verdict, decide, holm, one_sided_p, over_layers


def _around(value: float, sd: float) -> Estimate:
    return Estimate(value, sd, value - 1.96 * sd, value + 1.96 * sd)


def _decide(*cells: tuple[float, float], met: bool = True, effect: float = 0.01) -> Verdict:
    names = [(r, s) for r in ("cosine", "SimHash") for s in ("AMI", "agreement")]
    made = [Cell(r, s, _around(*cell)) for (r, s), cell in zip(names, cells, strict=True)]
    premises = "smooth (gelu_new), with biases, LayerNorm before it; outside the paper's premises"
    return decide(made, place="Layer 3", documents=100, smallest_effect=effect, premises=premises, premises_met=met)


def test_supported_needs_all_four_lower_bounds_above_the_effect() -> None:
    ahead = (0.10, 0.02)
    found = _decide(ahead, ahead, (0.06, 0.02), ahead)
    assert (found.outcome, found.deciding_reference, found.deciding_score) == ("supported", "SimHash", "AMI")
    assert found.documents_needed is None
    assert _decide(ahead, ahead, (0.04, 0.02), ahead).outcome == "inconclusive"


def test_one_upper_bound_below_the_effect_refutes() -> None:
    ahead = (0.10, 0.02)
    found = _decide(ahead, (-0.05, 0.02), ahead, ahead)
    assert (found.outcome, found.deciding_reference, found.deciding_score) == ("refuted", "cosine", "agreement")
    assert "refuted" in found.sentence
    assert "-0.050 [-0.089, -0.011] in agreement against cosine" in found.sentence


def test_ahead_by_less_than_the_effect_is_not_supported() -> None:
    tiny = (0.005, 0.0001)
    assert _decide(tiny, tiny, tiny, tiny).outcome == "refuted"
    assert _decide(tiny, tiny, tiny, tiny, effect=0.001).outcome == "supported"


def test_premises_that_do_not_hold_are_in_the_sentence() -> None:
    cells = ((0.1, 0.01),) * 4
    assert "supported, outside the paper's premises" in _decide(*cells, met=False).sentence
    assert "outside" not in _decide(*cells).sentence
    assert "Premises: smooth (gelu_new), with biases, LayerNorm before it." in _decide(*cells).sentence


@pytest.mark.parametrize("cells", [((0.05, 0.03), (0.2, 0.03), (0.04, 0.03), (0.2, 0.01)), ((0.0, 0.03),) * 4])
def test_the_documents_that_would_settle_it_do(cells: tuple[tuple[float, float], ...]) -> None:
    found = _decide(*cells)
    assert found.outcome == "inconclusive"
    assert found.documents_needed is not None

    def with_documents(n: int) -> str:
        return _decide(*((value, sd * np.sqrt(100 / n)) for value, sd in cells)).outcome

    assert with_documents(found.documents_needed) != "inconclusive"
    assert with_documents(found.documents_needed - 1) == "inconclusive"
    assert f"about {found.documents_needed:,} documents would settle it" in found.sentence


def test_no_number_settles_a_difference_that_is_the_effect_itself() -> None:
    assert _decide(*(((0.01, 0.02),) * 4)).documents_needed is None


def test_p_says_the_same_as_the_bound() -> None:
    assert pytest.approx(0.025, abs=1e-5) == ALPHA
    draws = np.random.default_rng(0).normal(0.05, 0.02, 500)
    found = Resampled(0.05, draws).by_halves(40)
    assert one_sided_p(found, found.low) == pytest.approx(ALPHA)
    assert one_sided_p(_around(0.05, 0.02), 0.01) == pytest.approx(norm.sf(2.0))
    assert one_sided_p(_around(0.05, 0.0), 0.01) == 0
    assert one_sided_p(_around(0.0, 0.0), 0.01) == 1


def test_holm_on_a_worked_example() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([]).size == 0


def test_a_layer_that_passes_alone_may_not_pass_as_one_of_many() -> None:
    weak = _decide(*(((0.055, 0.02),) * 4))
    assert weak.outcome == "supported"
    bad = _decide(*(((-0.2, 0.02),) * 4))
    corrected = over_layers([weak, bad, bad])
    assert [v.outcome for v in corrected] == ["inconclusive", "refuted", "refuted"]
    assert corrected[0].p_holm == pytest.approx(3 * weak.p)
    assert corrected[0].documents_needed is not None
    assert corrected[0].documents_needed > 100
    assert "not as one of 3 layers" in corrected[0].sentence
    strong = replace(weak, p=1e-9)
    assert over_layers([strong, bad])[0].outcome == "supported"
    assert over_layers([weak])[0] == weak
