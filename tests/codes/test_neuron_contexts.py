"""A neuron's strongest contexts: which tokens, how shaded, where the boundary lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm import report
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from pathlib import Path

    from polytope_lm.models.model import Model

TEXTS = ["The river bank was wide and the boat <b>ran</b> by", "She owes the bank money", "A duck & a pond \u202e here"]


def test_the_strongest_tokens_are_shown_with_all_that_stands_around_them(model: Model) -> None:
    codes = plm.encode(model, TEXTS, layers=[1])
    h = codes.activations("h")[:, 7]
    found = codes.neuron(1, 7, k=2, around=3)
    first, second = found.contexts
    assert first.row == int(h.argmax())
    assert first.h == pytest.approx(float(h.max()))
    assert found.rate == pytest.approx(float((h > 0).mean()))
    record = codes.tokens.iloc[first.row]
    text = TEXTS[record["document"]]
    shown = "".join(piece.text for piece in first.pieces)
    assert shown in text
    assert text[record["start"] : record["end"]] == first.pieces[first.peak].text
    mine = codes.tokens[codes.tokens["document"] == record["document"]]
    near = mine[(mine["position"] - record["position"]).abs() <= 3]
    np.testing.assert_allclose([piece.h for piece in first.pieces if piece.h is not None], h[near.index], atol=1e-6)
    # Boundaries lie where the sign changes, and nowhere else.
    signs = h[near.index] > 0
    crossed = [crossed for piece, crossed in first.marked() if piece.h is not None]
    assert crossed == [False, *(signs[1:] != signs[:-1])]
    assert first.text().count("│") == int((signs[1:] != signs[:-1]).sum())
    # The next one shares no token with it.
    others = np.setdiff1d(np.arange(len(h)), near.index)
    assert second.h <= h[others].max()
    frame = found.to_frame()
    assert frame["peak"].sum() == 2
    assert (frame["on"] == (frame["h"] > 0)).all()


def test_shading_is_by_activation_and_text_stays_text(model: Model, tmp_path: Path) -> None:
    codes = plm.encode(model, TEXTS, layers=[1])
    found = codes.neuron(None, 7, k=3)
    page = found._repr_html_()
    assert "<b>ran" not in page
    assert "\u202e" not in page
    assert page.count('title="boundary"') == sum(one.text().count("│") for one in found.contexts)
    strongest = max(piece.h for one in found.contexts for piece in one.pieces if piece.h is not None)
    assert f'title="h = {strongest:.3f}, on"' in page
    assert "underlined" in page
    written = report.write(tmp_path / "page.html", others=[found]).read_text()
    assert found.html() in written
    assert ">Neurons</button>" in written


def test_only_stored_tokens_are_shaded(model: Model) -> None:
    codes = plm.encode(model, [TEXTS[0] * 2], layers=[1], tokens="random:6")
    found = codes.neuron(1, 3, k=1, around=20)
    pieces = found.contexts[0].pieces
    assert sum(piece.h is not None for piece in pieces) == 6
    assert any(piece.h is None and piece.text for piece in pieces)


def test_mistakes_are_named_in_one_line(model: Model) -> None:
    codes = plm.encode(model, TEXTS, layers=[1])
    for arguments, options, words in [
        ((1, 96), {}, "neuron 96 is not in L01.pre, whose neurons are 0 to 95"),
        ((1, -1), {}, "neuron -1"),
        ((1, "a"), {}, "neuron 'a'"),
        ((5, 0), {}, "no codes of layer 5"),
        ((1, 0), {"k": 0}, "k = 0"),
        ((1, 0), {"around": 0}, "around = 0"),
    ]:
        with pytest.raises(PolytopeError, match=words):
            codes.neuron(*arguments, **options)
    with pytest.raises(PolytopeError, match="--keep h"):
        plm.encode(model, TEXTS, layers=[1], keep=()).neuron(1, 0)
