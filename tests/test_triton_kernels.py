"""Triton's kernels on the CPU, by its interpreter, in processes of their own: it is chosen when Triton is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FILTER = """
import numpy as np, torch
from polytope_lm import triton_kernels
from polytope_lm.codes.hamming.gpu import Lists, append_below
rng = np.random.default_rng(0)
n, m, width, bits = 37, 601, 96, 25
a, b = (torch.from_numpy(rng.choice(np.array([-1, 1], np.int8), (x, width))) for x in (64, 608))
products, place = torch._int_mm(a, b.t()), torch.from_numpy(rng.permutation(m).astype(np.int32))
for n_groups in (0, 2):
    groups = [torch.from_numpy(rng.integers(-1, 30, (rows, n_groups)).astype(np.int32)) for rows in (n, m)]
    both = []
    for append in (append_below, triton_kernels.append_below):
        lists = Lists.empty(n, 4, 30, torch.device("cpu"))
        lists.best.fill_((40 << bits) - 2**31)
        append(products, place, *groups, lists, bits, width)
        count = lists.count.clone()
        lists.settle()
        both.append((lists.best, count, lists.overflowed))
    for plain, compiled in zip(*both, strict=True):
        assert torch.equal(plain, compiled)
    assert 0 < both[0][2].sum() < n
"""
PACKING = """
import numpy as np, torch
from polytope_lm import triton_kernels
rng = np.random.default_rng(0)
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    for width in (1, 7, 64, 3073):
        h = torch.from_numpy(rng.standard_normal((9, width)).astype(np.float32)).to(dtype)
        h[0] = 0.0
        h[1] = -0.0
        h[2] = torch.finfo(dtype).tiny / 2  # less than the least normal number
        h[3, width - 1], h[4, 0], h[5, 0] = float("nan"), float("inf"), float("-inf")
        packed, finite = triton_kernels.pack_rows(h)
        assert finite.tolist() == [True] * 3 + [False] * 3 + [True] * 3
        sound = np.packbits((h > 0).numpy(), axis=1, bitorder="little")[finite.numpy()]
        assert np.array_equal(packed.numpy()[finite.numpy()], sound)
        part = torch.cat([h, h], dim=1)[:, width:]  # a row begins behind another's end
        assert torch.equal(triton_kernels.pack_rows(part)[0], packed)
"""


@pytest.mark.parametrize("script", [FILTER, PACKING], ids=["filter", "packing"])
def test_a_kernel_does_what_plain_torch_does(script):
    pytest.importorskip("triton")
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


COMPILING = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from polytope_lm import triton_kernels
numbers = ("width", "stride", "n_bytes", "exponent")
kind = {"h": "*i16", "packed": "*u8", "odd": "*u8", **dict.fromkeys(numbers, "i32"), "size": "constexpr"}
triton.compile(ASTSource(triton_kernels._pack, kind, {"size": 256}), target=GPUTarget("cuda", 90, 32))
pointers = ("products", "place", "mine", "theirs", "best", "added", "count")
numbers = ("rows", "columns", "stride", "k", "room", "offset", "shift")
sizes = {"groupings": 2, "tall": 8, "wide": 512}
kind = {**dict.fromkeys(pointers, "*i32"), **dict.fromkeys(numbers, "i32"), **dict.fromkeys(sizes, "constexpr")}
triton.compile(ASTSource(triton_kernels._append, kind, sizes), target=GPUTarget("cuda", 90, 32))
"""


def test_kernels_compile_for_a_gpu_that_is_not_here():
    pytest.importorskip("triton")
    done = subprocess.run([sys.executable, "-c", COMPILING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
