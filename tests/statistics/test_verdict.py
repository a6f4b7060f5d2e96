from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from polytope_lm.errors import PolytopeError
from polytope_lm.statistics.estimate import ALPHA, Estimate
from polytope_lm.statistics.verdict import (
    OUTCOMES,
    REACH,
    Cell,
    Verdict,
    decide,
    holm,
    in_layers,
    least_lead,
    over_layers,
    ranges,
)

NAMES = [(r, s) for r in ("raw cosine", "centred cosine", "SimHash") for s in ("AMI", "agreement")]
AHEAD = (0.10, 0.02)


def _decide(*cells: tuple[float, float], met: bool = True, effect: float = 0.01, **more) -> Verdict:
    made = [Cell(r, s, Estimate.around(*cell)) for (r, s), cell in zip(NAMES, cells, strict=False)]
    premises = "smooth (gelu_new), with biases, LayerNorm before it; outside the paper's premises"
    options = {"place": "Layer 3", "documents": 100, "premises": premises, "premises_met": met}
    return decide(made, smallest_effect=effect, **options, **more)


def test_supported_needs_all_lower_bounds_above_the_effect() -> None:
    found = _decide(AHEAD, AHEAD, (0.06, 0.02), AHEAD, AHEAD, AHEAD)
    assert (found.outcome, found.deciding_reference, found.deciding_score) == ("supported", "centred cosine", "AMI")
    assert found.documents_needed is None
    assert found.power is None
    assert _decide(AHEAD, AHEAD, (0.04, 0.02), AHEAD).outcome == "inconclusive"


def test_an_upper_bound_below_zero_is_behind_and_below_the_effect_no_lead() -> None:
    found = _decide((0.02, 0.05), (-0.10, 0.02), (0.02, 0.05))
    assert (found.outcome, found.deciding_reference, found.deciding_score) == ("behind", "raw cosine", "agreement")
    assert "-0.100 [-0.139, -0.061] in agreement against raw cosine" in found.sentence
    found = _decide((0.02, 0.05), (0.0, 0.003), (0.02, 0.05))
    assert (found.outcome, found.deciding_score) == ("no lead", "agreement")
    assert "A lead worth having is ruled out" in found.sentence
    # Ahead of it beyond doubt, by less than matters: no lead, too, and not behind.
    assert _decide(*(((0.005, 0.0001),) * 4)).outcome == "no lead"
    assert _decide(*(((0.005, 0.0001),) * 4), effect=0.001).outcome == "supported"


def test_ahead_in_one_cell_and_behind_in_another_is_mixed() -> None:
    found = _decide(AHEAD, (-0.10, 0.02), AHEAD, AHEAD)
    assert (found.outcome, found.deciding_score, found.deciding_reference) == ("mixed", "agreement", "raw cosine")
    assert "Ahead by +0.100 [+0.061, +0.139] in AMI" in found.sentence
    assert "behind by -0.100 [-0.139, -0.061] in agreement against raw cosine" in found.sentence


def test_a_lead_or_a_lag_in_one_cell_of_many_has_to_be_sure_for_mixed() -> None:
    """Bounds of one cell alone, 2.4 standard errors off, are no claim among six, and less so among more layers."""
    other = ((0.0, 0.02),) * 4
    assert _decide((-0.1, 0.02), (0.048, 0.02), *other).outcome == "behind"
    assert _decide((-0.1, 0.02), (0.056, 0.02), *other).outcome == "mixed"
    assert _decide((0.1, 0.02), (-0.048, 0.02), *other).outcome != "mixed"
    assert _decide((0.1, 0.02), (-0.056, 0.02), *other).outcome == "mixed"
    alone = _decide((-0.1, 0.02), (0.056, 0.02), *other)
    assert {each.outcome for each in over_layers([alone] + [_decide(*(((0.0, 0.02),) * 6))] * 5)} == {
        "behind", "inconclusive",
    }  # fmt: skip


def test_a_label_that_nothing_sees_can_not_be_tested() -> None:
    flat = ((0.0, 0.002),) * 6
    found = _decide(*flat, seen=0.006)
    assert found.outcome == "not testable"
    assert "no score's upper bound exceeds 0.006" in found.sentence
    assert _decide(*flat, seen=0.02).outcome == "no lead"
    assert _decide(*flat).outcome == "no lead"
    # It comes before everything else.
    assert _decide(AHEAD, (-0.1, 0.02), seen=0.009).outcome == "not testable"


@given(
    st.lists(st.tuples(st.floats(-0.1, 0.1), st.floats(0.001, 0.05)), min_size=2, max_size=6),
    st.one_of(st.none(), st.floats(0, 0.03)),
)
def test_the_first_outcome_that_applies_in_their_order(cells: list, seen: float | None) -> None:
    """Written again from the words, with Holm's correction over the cells where it is due."""
    found = _decide(*cells, seen=seen)
    lows = [each - 1.96 * sd for each, sd in cells]

    def one(bound: float) -> bool:
        p = sorted(norm.cdf((each - bound) / sd) for each, sd in cells)
        return p[0] * len(cells) < norm.sf(1.96)

    if seen is not None and seen < 0.01:
        expected = "not testable"
    elif one(0):
        ahead = min(norm.sf(each / sd) for each, sd in cells) * len(cells) < norm.sf(1.96)
        expected = "mixed" if ahead else "behind"
    elif min(lows) > 0.01:
        expected = "supported"
    else:
        expected = "no lead" if one(0.01) else "inconclusive"
    assert found.outcome == expected


def test_premises_weights_and_effective_documents_are_in_the_sentence() -> None:
    cells = ((0.1, 0.01),) * 4
    assert "supported, outside the paper's premises" in _decide(*cells, met=False).sentence
    assert "outside" not in _decide(*cells).sentence
    assert "Premises: smooth (gelu_new), with biases, LayerNorm before it." in _decide(*cells).sentence
    said = _decide(*cells, weights="dequantised from 4 bits", effective=41.7).sentence
    assert "Weights dequantised from 4 bits." in said
    assert "100 documents, effectively 42" in said


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


@pytest.mark.parametrize("freedom", [None, 12.0])
def test_the_least_lead_is_supported_in_80_percent_of_samples(freedom: float | None) -> None:
    sds = np.array([0.01, 0.02, 0.02])
    lead = least_lead([Cell(*NAMES[i], Estimate.around(0, sd, freedom)) for i, sd in enumerate(sds)], 0.01)
    rng = np.random.default_rng(0)
    error = rng.normal(size=(40000, 3)) if freedom is None else t.rvs(freedom, size=(40000, 3), random_state=rng)
    reach = norm.isf(ALPHA) if freedom is None else t.isf(ALPHA, freedom)
    passed = (lead + error * sds - reach * sds > 0.01).all(axis=1).mean()
    assert passed == pytest.approx(0.8, abs=0.01)
    found = _decide((0.0, 0.01), (0.0, 0.02))
    assert found.power is not None
    assert (
        f"a true lead of {found.power:.3f} in every comparison would have been called supported in 80%"
        in found.sentence
    )
    # As one of several layers it takes more.
    assert over_layers([found, found])[0].power > found.power


def test_holm_on_a_worked_example() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    assert holm([]).size == 0


def test_a_layer_that_passes_alone_may_not_pass_as_one_of_many() -> None:
    weak = _decide(*(((0.055, 0.02),) * 4))
    assert weak.outcome == "supported"
    bad = _decide(*(((-0.2, 0.02),) * 4))
    corrected = over_layers([weak, bad, bad])
    assert [v.outcome for v in corrected] == ["inconclusive", "behind", "behind"]
    assert corrected[0].p_holm == pytest.approx(3 * weak.p)
    assert corrected[0].documents_needed is not None
    assert corrected[0].documents_needed > 100
    assert "not as one of 3 layers" in corrected[0].sentence
    assert over_layers([weak])[0] == weak


def test_behind_is_corrected_over_cells_and_layers() -> None:
    """One cell of six at p = .01 one-sided: not behind as one of six, though its interval excludes 0."""
    quiet = ((0.02, 0.05),) * 5
    one = (-norm.isf(0.01) * 0.2, 0.2)
    assert _decide(one).outcome == "behind"
    six = _decide(one, *quiet)
    assert six.cells[0].difference.high < 0
    assert six.outcome == "inconclusive"
    clear = _decide((-norm.isf(0.003) * 0.2, 0.2), *quiet)
    assert clear.outcome == "behind"
    assert over_layers([clear, _decide(*quiet), _decide(*quiet)])[0].outcome == "inconclusive"


def test_no_layer_has_no_verdict() -> None:
    assert over_layers([]) == ()


def test_a_verdict_without_its_cells_can_not_be_corrected_again() -> None:
    old = replace(_decide(AHEAD), cells=())
    with pytest.raises(PolytopeError, match="Layer 3: this verdict is an earlier version's"):
        over_layers([old])


def test_layers_are_told_in_a_plain_sentence() -> None:
    one = _decide(AHEAD, AHEAD)
    assert in_layers({4: one}) == one.sentence
    low = _decide((-0.1, 0.01), (0.02, 0.05))
    assert in_layers(dict.fromkeys(range(3), low)).startswith("Behind in all 3 layers, by AMI against raw cosine (low")
    assert in_layers({0: low, 7: low}).startswith("Behind in both layers")
    outside = replace(low, premises_met=False)
    said = in_layers({0: one, 1: low, 2: low, 5: outside})
    assert said.startswith("Supported in 1 of 4 layers (0), by AMI against raw cosine (+0.100 [+0.061, +0.139]); behi")
    assert "behind in 3 of 4 layers (1, 2, 5)" in said
    assert "true lead" not in said
    assert "Outside the paper's premises in layer 5." in said
    assert said.endswith("Premises: smooth (gelu_new), with biases, LayerNorm before it.")
    assert ranges([0, 1, 2, 7, 8, 11]) == "0-2, 7, 8, 11"
    assert set(OUTCOMES) >= {one.outcome, low.outcome}


def test_beside_layers_that_decide_nothing_stands_the_lead_that_they_would_have_seen() -> None:
    wide, narrow, ruled_out = (_decide(*(cell,) * 4) for cell in ((0.0, 0.03), (0.01, 0.01), (0.0, 0.003)))
    assert [each.outcome for each in (wide, narrow, ruled_out)] == ["inconclusive", "inconclusive", "no lead"]
    said = in_layers({2: wide, 5: narrow, 7: ruled_out})
    seen = "in every comparison would have been called supported in 80%"
    assert f", where a true lead of {narrow.power:.3f} in layer 5 to {wide.power:.3f} in layer 2 {seen}" in said
    assert f", where a true lead of {ruled_out.power:.3f} in layer 7 {seen}; inconclusive in 2 of 3" in said
    # Files of earlier versions do not have it.
    assert "true lead" not in in_layers(dict.fromkeys((2, 5), replace(wide, power=None)))


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.tuples(st.floats(-0.1, 0.1), st.floats(0.005, 0.05)), min_size=3, max_size=3),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([1, 4, 16]),
)
def test_what_another_seed_may_say_is_what_moved_cells_say(layers: list, rounds: int) -> None:
    """Each cell of the layer, and all, are moved by hand; then the layers are decided from the start."""
    found = over_layers([_decide(*cells, rounds=rounds) for cells in layers])
    reach = REACH / np.sqrt(rounds)
    for number, verdict in enumerate(found):
        said = set()
        for some in ([0], [1], [2], [0, 1, 2]):
            for sign in (-1, 1):
                moved = [(value + sign * reach * sd * (i in some), sd) for i, (value, sd) in enumerate(layers[number])]
                made = [_decide(*(moved if n == number else cells)) for n, cells in enumerate(layers)]
                said.add(over_layers(made)[number].outcome)
        assert set(verdict.otherwise) == said - {verdict.outcome}
        assert ("other random choices may say" in verdict.sentence) == bool(verdict.otherwise)
    turning = [n for n, verdict in enumerate(found) if verdict.otherwise]
    assert ("other random choices may say" in in_layers(dict(enumerate(found)))) == bool(turning)


def test_a_verdict_far_from_every_bound_is_not_turned_and_one_that_is_not_asked_says_nothing() -> None:
    near = (-2.2 * 0.02, 0.02)
    assert _decide(near, rounds=1).otherwise == ("inconclusive",)
    assert _decide(near, rounds=400).otherwise == ()
    assert _decide(near).otherwise == ()
    assert _decide((-0.2, 0.02), rounds=1).otherwise == ()


def test_measurements_count_alike_and_the_standard_error_stays() -> None:
    first, second, third = (
        _decide(cell, (0.1, 0.01), seen=seen, rounds=1)
        for cell, seen in (((0.02, 0.01), 0.2), ((0.05, 0.02), 0.3), ((0.11, 0.03), 0.4))
    )
    together = first.beside(second).beside(third)
    assert together.rounds == 3
    assert together.cells[0].difference.value == pytest.approx(0.06)
    assert together.cells[0].difference.sd == pytest.approx(np.sqrt((1 + 4 + 9) / 3) / 100)
    assert together.seen == pytest.approx(0.3)
    assert together.p == pytest.approx(max(cell.difference.p_above(0.01) for cell in together.cells))
    half = first.beside(second, 0.5).beside(third, 0.5)
    assert half.cells[0].difference.value == pytest.approx(0.06)
    assert half.cells[0].difference.sd == pytest.approx(np.sqrt((2 * 1 + 4 + 9) / 4) / 100)
