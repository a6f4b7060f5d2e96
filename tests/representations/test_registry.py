from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import polytope_lm as plm
from polytope_lm.codes.codes import Codes
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Premises, Site
from polytope_lm.representations import Rows, get, registered, registry
from polytope_lm.representations.arrays import LayerArrays

if TYPE_CHECKING:
    from collections.abc import Iterator

T, N, D = 30, 20, 6


@pytest.fixture(autouse=True)
def _clean_registry() -> Iterator[None]:
    before = dict(registry._REGISTRY)
    yield
    registry._REGISTRY.clear()
    registry._REGISTRY.update(before)


def _codes(kept: tuple[str, ...] = ("u", "h")) -> Codes:
    import pandas as pd

    rng = np.random.default_rng(0)
    site = Site(4, "pre", "blocks.4.mlp.hook_pre", N, D, Premises("piecewise affine", "relu", True, "LayerNorm"))
    h = rng.normal(size=(T, N)).astype(np.float32)
    arrays = {"h": h, "u": rng.normal(size=(T, D)).astype(np.float32)}
    return Codes(
        sites=(site,),
        table=pd.DataFrame({"document": np.zeros(T, dtype=int)}),
        arrays={site.key: np.packbits(h > 0, axis=1, bitorder="little")},
        ids=["d"],
        texts=["t"],
        kept=kept,
        kept_arrays={f"{site.key}.{name}": arrays[name] for name in kept},
    )


ROWS = np.array([1, 5, 6, 20])


def test_a_function_gets_the_arrays_that_its_parameters_name() -> None:
    seen = {}

    @plm.representation("everything", isolates="whether arrays arrive")
    def everything(bits, packed, pre, u, rates, site, seed):
        seen.update(locals())
        return np.sign(pre)

    codes = _codes()
    rows = get("everything").rows(LayerArrays(codes, 4, ROWS), seed=7)
    assert (rows.metric, rows.values.shape) == ("cosine", (4, N))
    np.testing.assert_array_equal(seen["bits"], codes.bits(4)[ROWS])
    np.testing.assert_array_equal(seen["pre"] > 0, seen["bits"])
    np.testing.assert_array_equal(seen["u"], codes.activations("u", 4)[ROWS])
    np.testing.assert_array_equal(seen["rates"], seen["bits"].mean(axis=0))
    np.testing.assert_array_equal(seen["packed"], codes.packed(4)[ROWS])
    assert seen["site"].layer == 4
    assert seen["seed"] == 7
    assert everything(**{k: seen[k] for k in ("bits", "packed", "pre", "u", "rates", "site", "seed")}).shape == (4, N)


def test_nothing_is_read_that_is_not_asked_for() -> None:
    @plm.representation("bits alone", isolates="laziness")
    def bits_alone(bits):
        return bits + 1.0

    assert get("bits alone").rows(LayerArrays(_codes(kept=()), 4, ROWS)).values.shape == (4, N)


def test_an_activation_that_was_not_kept_says_how_to_keep_it() -> None:
    with pytest.raises(PolytopeError, match=r"'h' of layer 4 was not kept.*--keep u,h"):
        get("cosine of h, raw").rows(LayerArrays(_codes(kept=("u",)), 4, ROWS))


def test_nan_in_an_activation_is_named_with_its_token() -> None:
    codes = _codes()
    codes.kept_arrays["L04.pre.h"][6, 3] = np.nan
    with pytest.raises(PolytopeError, match="'h' of layer 4 holds NaN or infinity at token 6"):
        get("cosine of h, raw").rows(LayerArrays(codes, 4, ROWS))


def test_an_unknown_parameter_fails_when_it_is_decorated() -> None:
    with pytest.raises(PolytopeError, match=r"'odd' has a parameter 'preactivations'; .* bits, packed, through, pre"):

        @plm.representation("odd", isolates="a typo")
        def odd(preactivations):
            return preactivations


def test_a_name_is_taken_once_unless_replaced() -> None:
    def first(pre):
        return pre

    def second(pre):
        return -pre

    plm.representation("mine", isolates="first")(first)
    with pytest.raises(PolytopeError, match="'mine' is already registered"):
        plm.representation("mine", isolates="second")(second)
    assert get("mine").function is first
    plm.representation("mine", isolates="second", replace=True)(second)
    assert (get("mine").isolates, get("mine").function) == ("second", second)
    with pytest.raises(PolytopeError, match="no representation 'yours'; registered are 'code'"):
        get("yours")


def test_a_cell_may_be_run_again() -> None:
    cell = """@plm.representation("mine", isolates="run {run}")
def mine(pre):
    return pre * {run}
"""
    notebook = {"plm": plm, "__name__": "__main__"}
    for run in (1, 2):
        exec(cell.format(run=run), notebook)  # noqa: S102
    assert get("mine").isolates == "run 2"
    assert get("mine").function is notebook["mine"]
    with pytest.raises(PolytopeError, match="'mine' is already registered"):
        exec(cell.format(run=3), notebook | {"__name__": "another"})  # noqa: S102
    with pytest.raises(PolytopeError, match="'code' is already registered"):
        exec(cell.replace('"mine"', '"code"').format(run=3), notebook)  # noqa: S102


def test_several_draws_need_a_seed() -> None:
    with pytest.raises(PolytopeError, match="several draws need a parameter `seed`"):
        plm.representation("random", isolates="chance", draws=3)(lambda pre: pre)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.ones(4), r"gave shape \(4,\); it must give one row for each of 4 tokens"),
        (np.ones((3, 2)), r"gave shape \(3, 2\)"),
        (np.full((4, 2), np.inf), "gave NaN or infinity for token 0"),
        (Rows(np.ones((4, 2)), "Hamming"), "gave float64 rows for Hamming"),
    ],
)
def test_rows_that_can_not_be_compared_are_refused(out: object, message: str) -> None:
    plm.representation("bad", isolates="errors")(lambda bits: out)  # noqa: ARG005
    with pytest.raises(PolytopeError, match=message):
        get("bad").rows(LayerArrays(_codes(), 4, ROWS))


def test_every_built_in_says_what_it_isolates() -> None:
    import polytope_lm.controls  # noqa: F401

    names = {each.name: each for each in registered()}
    assert set(names) >= {
        "code",
        "rate-standardised code",
        "cosine of h, raw",
        "cosine of h, centred",
        "SimHash, rate-matched",
    }
    assert all(each.isolates and "\n" not in each.isolates for each in names.values())
    assert names["SimHash, rate-matched"].draws == 5


def test_the_reference_lists_every_built_in_and_what_must_be_kept() -> None:
    import polytope_lm.controls  # noqa: F401

    page = Path(__file__).resolve().parents[2] / "docs" / "reference.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for each in registered():
        (row,) = (row for row in rows if f"`{each.name}`" in row)
        needs = {"h" if n == "pre" else n for n in each.needs} & {"h", "u", "x", "post", "up"}
        assert {kept.strip() for kept in row.split("|")[3].split(",") if kept.strip()} == needs
