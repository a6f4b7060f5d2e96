"""Packing, its order of parts, and batches into rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.codes import forward
from polytope_lm.codes.plan import make_plan
from polytope_lm.models.hooks import NotFiniteError, pack, pack_on_device
from polytope_lm.models.sites import width_of


@given(st.integers(1, 70), st.integers(0, 5), st.integers(0, 99))
def test_packing_on_a_device_equals_numpy(width, rows, seed):
    on = torch.from_numpy(np.random.default_rng(seed).random((2, rows, width)) < 0.5)
    expected = np.packbits(on.numpy(), axis=-1, bitorder="little")
    np.testing.assert_array_equal(pack_on_device(on).numpy(), expected)
    np.testing.assert_array_equal(pack(on.float() - 0.5), expected)


def test_zero_is_off_and_signs_of_zero_do_not_matter():
    assert pack(torch.tensor([[0.0, -0.0, 1e-45, -1e-45, 3.0]])).tolist() == [[0b10100]]


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 99))
def test_parts_are_joined_bit_by_bit(width, n, seed):
    bits = np.random.default_rng(seed).random((4, n, width)) < 0.5
    parts = [np.packbits(bits[:, i], axis=1, bitorder="little") for i in range(n)]
    joined = forward._side_by_side(parts, width)
    np.testing.assert_array_equal(joined, np.packbits(bits.reshape(4, -1), axis=1, bitorder="little"))


@pytest.mark.parametrize("budget", [1, 40, 2048])
def test_rows_do_not_depend_on_the_batches(gated, budget):
    """Sorted by length inside, in the documents' order outside; every batch writes its own rows."""
    reference = plm.encode(gated, SENTENCES, kind="gate+up", keep=["h"])
    codes = plm.encode(gated, SENTENCES, kind="gate+up", keep=["h"], batch_tokens=budget)
    assert codes.tokens.equals(reference.tokens)
    h = reference.activations("h", 1)
    np.testing.assert_allclose(codes.activations("h", 1), h, atol=1e-5)
    np.testing.assert_array_equal(codes.bits(1)[np.abs(h) > 1e-4], reference.bits(1)[np.abs(h) > 1e-4])


def test_the_order_in_which_branches_are_computed_does_not_matter(gated):
    """gate stands before up in a row, whichever hook fires first."""
    wanted = make_plan(gated, layers=[0], kind="gate+up", keep=["h"], tokens="all").wanted
    windowed = make_plan(gated, layers=[0], kind=None, keep=(), tokens="all").windowing.apply(
        [plm.documents.Document("0", SENTENCES[0])], 0, gated.tokenizer
    )
    batch = next(forward.batches(windowed.windows, token_budget=999, pad_id=0))
    kept = forward._Kept.of(batch, {id(windowed.windows[0]): 0})
    values = torch.randn(2, *batch.input_ids.shape, 51)
    rows = []
    for order in ((0, 1), (1, 0)):
        arrays = forward.in_memory(wanted, windowed.n_kept)
        for spec in wanted:
            readers = forward._readers(gated, spec, arrays[spec.name], kept)
            for part in order:
                readers[part](values[part])
        rows.append(arrays)
    np.testing.assert_array_equal(rows[0]["L00.gate+up"], rows[1]["L00.gate+up"])
    bits = np.unpackbits(rows[0]["L00.gate+up"], axis=1, count=102, bitorder="little")
    np.testing.assert_array_equal(bits, rows[0]["L00.gate+up.h"] > 0)


def test_widths(gated, model):
    site = gated.site(0, "gate+up")
    assert [width_of(site, n) for n in (None, "x", "u", "h", "up", "post")] == [13, 24, 24, 102, 51, 51]
    assert [width_of(model.site(0), n) for n in (None, "h", "post")] == [12, 96, 96]


def test_chunks():
    assert list(forward.chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(forward.chunks([], 2)) == []


@pytest.mark.parametrize("width", [1, 7, 8, 9, 51, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_number_format_and_width_packs_alike(width: int, dtype: torch.dtype) -> None:
    h = torch.randn(3, 4, width, generator=torch.Generator().manual_seed(width)).to(dtype)
    h[0, 0, 0], h[1, 1, -1] = 0.0, -0.0
    expected = np.packbits((h.double() > 0).numpy(), axis=-1, bitorder="little")
    np.testing.assert_array_equal(pack(h), expected)
    # Not contiguous: another path through the function.
    np.testing.assert_array_equal(pack(h.transpose(0, 1)), expected.swapaxes(0, 1))


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_value_that_is_not_finite_is_found(value: float, dtype: torch.dtype) -> None:
    h = torch.ones(3, 9, dtype=dtype)
    h[2, 8] = value
    with pytest.raises(NotFiniteError, match="needs finite values") as error:
        pack(h)
    assert error.value.index == [2, 8]
