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
from polytope_lm.codes.hamming.hamming import beside
from polytope_lm.models.hooks import NotFiniteError, pack, pack_rows
from polytope_lm.models.sites import width_of


@given(st.integers(1, 70), st.integers(0, 5), st.integers(0, 99))
def test_packing_on_a_device_equals_numpy(width, rows, seed):
    on = torch.from_numpy(np.random.default_rng(seed).random((2, rows, width)) < 0.5)
    expected = np.packbits(on.numpy(), axis=-1, bitorder="little")
    packed, finite = pack_rows(on.flatten(0, 1).float() - 0.5)
    np.testing.assert_array_equal(packed.numpy().reshape(expected.shape), expected)
    assert finite.all()
    np.testing.assert_array_equal(pack(on.float() - 0.5), expected)
    np.testing.assert_array_equal(pack(on.double() - 0.5), expected)


def test_zero_is_off_and_signs_of_zero_do_not_matter():
    assert pack(torch.tensor([[0.0, -0.0, 1e-45, -1e-45, 3.0]])).tolist() == [[0b10100]]


@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 99))
def test_parts_are_joined_bit_by_bit(width, n, seed):
    bits = np.random.default_rng(seed).random((4, n, width)) < 0.5
    parts = [np.packbits(bits[:, i], axis=1, bitorder="little") for i in range(n)]
    joined = beside(parts, [width] * n)
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


def test_gate_stands_before_up_in_a_row(gated):
    parts = [plm.encode(gated, SENTENCES, kind=kind, keep=["h"]) for kind in ("gate", "up")]
    both = plm.encode(gated, SENTENCES, kind="gate+up", keep=["h"])
    for take in (lambda codes: codes.bits(0), lambda codes: codes.activations("h", 0)):
        np.testing.assert_array_equal(take(both), np.concatenate([take(part) for part in parts], axis=1))
    np.testing.assert_array_equal(both.bits(0), both.activations("h", 0) > 0)


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
