"""Separating bits against scipy, one bit at a time, and against planted ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from polytope_lm.codes.hamming import hamming
from polytope_lm.codes.separating import fisher, separating
from polytope_lm.errors import PolytopeError

WIDTH = 83


def _planted(rng: np.random.Generator, tokens: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Random bits of varied rates; bits 3 and 70 follow the group, one for and one against it."""
    group = rng.random(tokens) < 0.4
    bits = rng.random((tokens, WIDTH)) < rng.beta(1, 3, WIDTH)
    bits[:, 3] = rng.random(tokens) < np.where(group, 0.8, 0.3)
    bits[:, 70] = rng.random(tokens) < np.where(group, 0.2, 0.6)
    bits[:, 10], bits[:, 11] = False, True
    return bits, group


def test_odds_and_p_values_are_those_of_scipy_for_each_bit() -> None:
    bits, group = _planted(np.random.default_rng(0))
    result = separating(hamming.pack(bits), WIDTH, group, ~group)
    for i in range(WIDTH):
        a, b = bits[group, i], bits[~group, i]
        table = np.array([[a.sum(), (~a).sum()], [b.sum(), (~b).sum()]])
        assert result.p[i] == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6)
        odds = stats.contingency.odds_ratio(table + 0, kind="sample").statistic
        if 0 < odds < np.inf:
            assert result.log_odds[i] == pytest.approx(np.log(odds), abs=0.5)
        corrected = table + 0.5
        expected = np.log(corrected[0, 0] / corrected[0, 1]) - np.log(corrected[1, 0] / corrected[1, 1])
        assert result.log_odds[i] == pytest.approx(expected)
        assert (result.rate_a[i], result.rate_b[i]) == (a.mean(), b.mean())
    np.testing.assert_allclose(result.q, stats.false_discovery_control(result.p))
    assert result.p[10] == result.p[11] == 1


def test_fisher_equals_scipy_on_all_small_tables() -> None:
    for n_a, n_b in [(1, 1), (3, 8), (7, 7), (12, 2)]:
        on_a, on_b = (grid.ravel() for grid in np.mgrid[: n_a + 1, : n_b + 1])
        expected = [stats.fisher_exact([[x, n_a - x], [y, n_b - y]]).pvalue for x, y in zip(on_a, on_b, strict=True)]
        np.testing.assert_allclose(fisher(on_a, on_b, n_a, n_b), expected, rtol=1e-7)


def test_fisher_keeps_its_precision_far_in_the_tail_and_for_many_tokens() -> None:
    on_a, on_b, n_a, n_b = np.array([6200, 900]), np.array([4900, 10]), 10_000, 9_000
    expected = [stats.fisher_exact([[x, n_a - x], [y, n_b - y]]).pvalue for x, y in zip(on_a, on_b, strict=True)]
    assert expected[1] < 1e-200
    np.testing.assert_allclose(fisher(on_a, on_b, n_a, n_b), expected, rtol=1e-6)


def test_planted_bits_come_first_with_their_signs() -> None:
    bits, group = _planted(np.random.default_rng(1))
    result = separating(hamming.pack(bits), WIDTH, np.flatnonzero(group), np.flatnonzero(~group))
    assert set(result.significant[:2]) == {3, 70}
    assert result.log_odds[3] > 1
    assert result.log_odds[70] < -1
    frame = result.to_frame()
    assert set(frame["bit"]) == set(range(WIDTH))
    assert frame["q"].is_monotonic_increasing
    ties = frame[frame["q"] == 1]
    assert ties["log_odds"].abs().is_monotonic_decreasing
    assert int(frame["significant"].sum()) == len(result.significant)


def test_without_a_difference_hardly_any_run_finds_a_bit() -> None:
    """With every null true, the false discovery rate is the share of runs that find anything."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(100):
        bits = rng.random((120, WIDTH)) < 0.5
        group = rng.permutation(120) < 60
        hits += len(separating(hamming.pack(bits), WIDTH, group, ~group).significant) > 0
    assert hits <= 12


def test_examples_are_rows_in_the_state_that_is_typical_of_their_group() -> None:
    bits, group = _planted(np.random.default_rng(3))
    rows_a = np.random.default_rng(4).permutation(np.flatnonzero(group))
    result = separating(hamming.pack(bits), WIDTH, rows_a, ~group, examples=4)
    assert result.examples_a.shape == result.examples_b.shape == (WIDTH, 4)
    for i in range(WIDTH):
        more = result.log_odds[i] > 0
        expected = [row for row in rows_a if bits[row, i] == more][:4]
        assert [row for row in result.examples_a[i] if row >= 0] == expected
        expected = [row for row in np.flatnonzero(~group) if bits[row, i] != more][:4]
        assert [row for row in result.examples_b[i] if row >= 0] == expected


def _clustered(rng: np.random.Generator, paired: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """30 documents of 20 tokens, each with rates of its own: its tokens are far from independent."""
    documents = np.repeat(np.arange(30), 20)
    group = rng.random(600) < 0.5 if paired else documents < 15
    rates = rng.beta(0.3, 0.3, (30, WIDTH))
    return rng.random((600, WIDTH)) < rates[documents], group, documents


def test_tokens_of_the_same_documents_mislead_and_documents_as_units_do_not() -> None:
    rng = np.random.default_rng(5)
    by_token, by_document = 0, 0
    for _ in range(10):
        bits, group, documents = _clustered(rng, paired=False)
        packed = hamming.pack(bits)
        by_token += len(separating(packed, WIDTH, group, ~group).significant) > 10
        by_document += len(separating(packed, WIDTH, group, ~group, documents=documents).significant) > 0
    assert by_token == 10
    assert by_document <= 1


@pytest.mark.parametrize("paired", [True, False])
def test_tests_over_documents_are_those_of_all_exchanges_for_each_bit(paired: bool) -> None:
    """Ten documents have 252 splits in halves, or 1,024 choices of signs: all of them are tried."""
    bits, group, documents = _clustered(np.random.default_rng(6), paired)
    some = np.isin(documents, [0, 1, 2, 3, 4, 15, 16, 17, 18, 19])
    bits, group, documents = bits[some, :12], group[some], documents[some]
    result = separating(hamming.pack(bits), 12, group, ~group, documents=documents)
    assert result.units == 10
    assert "exchange test" in result.test
    for i in range(12):
        a, b = (
            np.array(
                [
                    bits[(documents == d) & mine, i].mean()
                    for d in np.unique(documents)
                    if (mine & (documents == d)).any()
                ]
            )
            for mine in (group, ~group)
        )
        if paired:
            seen = (a - b).sum()
            all_of_them = np.array([np.dot(signs, a - b) for signs in itertools.product((-1, 1), repeat=10)])
        else:
            rates = np.concatenate([a, b]) - np.concatenate([a, b]).mean()
            seen = rates[:5].sum()
            all_of_them = np.array([rates[list(chosen)].sum() for chosen in itertools.combinations(range(10), 5)])
        exact = (np.abs(all_of_them) >= abs(seen) - 1e-9).mean()
        assert result.p[i] == pytest.approx(exact, abs=0.02 + 0.15 * exact)


def test_the_interval_over_documents_holds_the_truth() -> None:
    """Tokens of one document are alike, so an interval over tokens would be far too narrow."""
    rng, holds, narrow = np.random.default_rng(12), 0, 0
    for _ in range(40):
        documents, group = np.repeat(np.arange(40), 20), np.repeat(np.arange(40), 20) < 20
        means = np.where(np.arange(40)[:, None] < 20, 0.6, 0.4) * np.ones(8)
        rates = rng.beta(4 * means, 4 * (1 - means))
        bits = rng.random((800, 8)) < rates[documents]
        result = separating(hamming.pack(bits), 8, group, ~group, documents=documents)
        truth = np.log(0.6 / 0.4) - np.log(0.4 / 0.6)
        holds += int(((result.low <= truth) & (truth <= result.high)).sum())
        by_token = 1.96 * np.sqrt(2 / (400 * 0.24))
        narrow += int((np.abs(result.log_odds - truth) <= by_token).sum())
    assert 0.9 <= holds / 320 <= 0.99
    assert narrow / 320 < 0.85


def test_documents_with_both_groups_are_left_out_where_few_are_shared() -> None:
    bits, _, documents = _clustered(np.random.default_rng(8), paired=False)
    group = documents < 15
    group[documents == 0] = np.arange(20) < 10
    result = separating(hamming.pack(bits), WIDTH, group, ~group, documents=documents)
    without = documents > 0
    expected = separating(
        hamming.pack(bits[without]), WIDTH, group[without], ~group[without], documents=documents[without]
    )
    assert result.units == 29
    np.testing.assert_array_equal(result.p, expected.p)


def test_documents_with_one_group_are_left_out_where_most_are_shared() -> None:
    bits, group, documents = _clustered(np.random.default_rng(11), paired=True)
    group[documents < 10] = True
    result = separating(hamming.pack(bits), WIDTH, group, ~group, documents=documents)
    some = documents >= 10
    group[(documents >= 10) & (documents < 18)] = False
    fewer = separating(hamming.pack(bits), WIDTH, group, ~group, documents=documents)
    expected = separating(hamming.pack(bits[some]), WIDTH, group[some], ~group[some], documents=documents[some])
    assert (result.units, fewer.units, expected.units) == (20, 12, 12)
    assert "both groups" in result.test
    assert "both groups" in fewer.test
    np.testing.assert_allclose(fewer.p, expected.p)


def test_the_page_shows_tokens_as_text_never_as_markup() -> None:
    bits, group = _planted(np.random.default_rng(9))
    plain = separating(hamming.pack(bits), WIDTH, group, ~group)
    shown = plain.with_contexts(lambda row: ("<script>alert(1)</script>", f"tok&{row}", "\u202eright"), top=5)
    assert plain.contexts == {}
    assert len(shown.contexts) == 5
    page = shown._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<b>tok&amp;" in page
    assert "examples in a" in page
    assert "examples in a" not in plain._repr_html_()
    assert "of 83 bits separate a" in repr(plain)


PACKED = np.zeros((6, 2), np.uint8)


@pytest.mark.usefixtures("users_arrays")
@pytest.mark.parametrize(
    ("a", "b", "extra", "words"),
    [
        ([], [1], {}, ["group a is empty"]),
        ([1], np.zeros(6, bool), {}, ["group b is empty"]),
        ([0, 1, 2], [2, 3], {}, ["row 2", "both groups"]),
        ([0, 6], [2], {}, ["group a has row 6", "0 to 5"]),
        ([0], [-1], {}, ["group b has row -1"]),
        ([0, 0], [1], {}, ["row 0 more than once"]),
        ([0.5], [1], {}, ["float64", "mask of 6 rows"]),
        (np.ones(4, bool), [1], {}, ["bool", "(4,)"]),
        ([0], [1], {"alpha": 1.0}, ["alpha is 1.0"]),
        ([0], [1], {"documents": np.zeros(5, int)}, ["(5,)", "6 rows"]),
        ([0], [1], {"documents": np.array(list("abcdef"))}, ["<U1"]),
    ],
)
def test_mistakes_are_named_in_one_line(a, b, extra, words) -> None:
    with pytest.raises(PolytopeError) as caught:
        separating(PACKED, 16, a, b, **extra)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.usefixtures("users_arrays")
def test_a_wrong_width_is_an_error() -> None:
    with pytest.raises(PolytopeError, match="2 bytes are not 24 bits"):
        separating(PACKED, 24, [0], [1])
