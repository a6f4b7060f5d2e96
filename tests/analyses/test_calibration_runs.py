"""What the calibration on real codes does, cell by cell, on a tiny model's codes."""

from __future__ import annotations

import numpy as np
import pytest

import polytope_lm as plm
from analyses import calibration
from polytope_lm.predictions.calibration.splits import part
from polytope_lm.predictions.calibration.trials import CELLS


@pytest.fixture(scope="module")
def codes():
    """Planted codes of 24 documents, four of them short, with a second label."""
    found = plm.worlds.direction_world(tokens=480, documents=24, seed=0)
    document = found.tokens["document"].to_numpy()
    found.tokens["upos"] = found.tokens["label"]
    found.tokens["genre"] = np.array(["web", "mail", "news"])[document % 3]
    short = (document < 4) & (found.tokens.groupby("document").cumcount() >= 5)
    found.tokens.loc[short, "upos"] = None
    return found


def test_the_small_sample_has_whole_documents_and_a_part_keeps_what_is_its_own(codes, monkeypatch) -> None:
    everything = calibration.sampled(codes, "upos", "all", 0)
    assert everything.summary.tokens == 420
    monkeypatch.setattr(calibration, "SMALL", 12)
    small = calibration.sampled(codes, "upos", "small", 0)
    assert (np.bincount(small.documents) == 20).all()
    assert (small.summary.documents, small.summary.tokens) == (12, 240)
    # The same documents for every label: clusters are shared.
    np.testing.assert_array_equal(small.rows, calibration.sampled(codes, "genre", "small", 0).rows)
    some = part(everything, np.array([2, 7, 8]))
    of = np.isin(everything.documents, [2, 7, 8])
    np.testing.assert_array_equal(some.rows, everything.rows[of])
    assert sorted(set(some.documents)) == [0, 1, 2]
    np.testing.assert_array_equal(np.diff(some.documents) != 0, np.diff(everything.documents[of]) != 0)
    values = {int(row): label for row, label in zip(everything.rows, everything.labels, strict=True)}
    pairs = {(values[int(row)], int(label)) for row, label in zip(some.rows, some.labels, strict=True)}
    assert len(pairs) == len({label for _, label in pairs}) == len({old for old, _ in pairs})


def test_nulls_and_splits_give_a_line_each_and_go_on(codes, monkeypatch) -> None:
    monkeypatch.setattr(calibration, "HALVES", 8)
    monkeypatch.setattr(calibration, "SIMHASH_DRAWS", 1)
    place = calibration.Place("planted", 0, "all")
    done = {calibration.key_of(place, "upos", null) for null in calibration.NULLS}
    lines = list(calibration.nulls(codes, place, 5, 0, done))
    assert [line["key"] for line in lines] == [calibration.key_of(place, "genre", null) for null in calibration.NULLS]
    for line in lines:
        assert (line["trials"], line["n"], line["documents"]) == (5, 420, 24)
        assert set(line["cells"]) == {f"{score}: {reference}" for score, reference in CELLS}
        assert all(0 <= cell["excluded"] <= 5 and cell["stated"] > 0 for cell in line["cells"].values())
    (split,) = calibration.splits(codes, place, 2, 0, {calibration.key_of(place, "halves", "0")})
    assert split["key"] == "planted | 0 | all | halves | 1"
    assert len(split["agree"]) == len(calibration.LABELS) * len(CELLS)
    assert set(split["agree"].values()) <= {True, False}
    told = calibration.summary([*lines, split], "")
    excluded = [cell["excluded"] / 5 for line in lines for cell in line["cells"].values()]
    assert told["nulls"]["pooled"] == pytest.approx(np.mean(excluded))
    assert told["halves"]["pooled"] == pytest.approx(np.mean(list(split["agree"].values())))
