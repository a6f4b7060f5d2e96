"""Activations with numbers of their own, against the modules' forward passes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import polytope_lm as plm
from polytope_lm.models.gates import activation, mlp_of
from polytope_lm.models.piecewise import function_of, piecewise_affine


def learned() -> nn.PReLU:
    act = nn.PReLU(7)
    nn.init.uniform_(act.weight, -1, 2)
    return act


MODULES = {
    "ReLU": nn.ReLU(inplace=True),
    "LeakyReLU": nn.LeakyReLU(0.2),
    "steeper below": nn.LeakyReLU(3.0),
    "RReLU": nn.RReLU(0.2, 0.6),
    "PReLU": nn.PReLU(),
    "PReLU, a slope a neuron": learned(),
    "ReLU6": nn.ReLU6(),
    "Hardtanh": nn.Hardtanh(-0.5, 2.0, inplace=True),
    "bounds above zero": nn.Hardtanh(0.5, 2.0),
    "Softshrink": nn.Softshrink(0.7),
    "Threshold": nn.Threshold(0.5, 0.5),
}


@pytest.mark.parametrize("name", list(MODULES))
def test_break_points_and_slopes_give_what_the_module_gives(name):
    act, h = MODULES[name].eval(), torch.linspace(-9, 9, 700, dtype=torch.float64).reshape(100, 7)
    theirs = copy.deepcopy(act).double()(h.clone()).detach().numpy()
    found = piecewise_affine(act)
    np.testing.assert_allclose(found(h.numpy()), theirs, atol=1e-12)
    given = h.clone()
    np.testing.assert_allclose(function_of(act)(given).numpy(), theirs, atol=1e-7)
    assert torch.equal(given, h)  # an activation in place leaves what it is asked about alone


@pytest.mark.parametrize("act", [nn.Threshold(0.5, 0.0), nn.Hardshrink(), nn.GELU(), nn.SiLU(), nn.Hardswish(), None])
def test_what_jumps_or_bends_smoothly_has_no_break_points(act):
    assert piecewise_affine(act) is None


class Doubled(nn.ReLU):
    """A ReLU by descent only."""

    def forward(self, h):
        return 2 * super().forward(h)


def test_a_module_of_another_class_is_not_taken_for_what_it_descends_from():
    assert piecewise_affine(Doubled()) is None


@pytest.mark.parametrize(
    ("act", "name", "linearity", "met"),
    [
        (nn.LeakyReLU(0.2), "leaky_relu", "piecewise affine", True),
        (nn.PReLU(), "prelu", "piecewise affine", True),
        (nn.RReLU(), "rrelu", "piecewise affine", True),
        (nn.Hardtanh(), "hardtanh", "piecewise affine, further kinks", False),
        (nn.Threshold(0.5, 0.5), "threshold", "piecewise affine, further kinks", False),
    ],
)
def test_the_module_speaks_not_the_configuration(act, name, linearity, met):
    """A model whose activation was exchanged after it was made: its configuration still says `relu`."""
    tiny = plm.load("tiny-relu")
    hf = copy.deepcopy(tiny.hf)
    for block in hf.transformer.h:
        block.mlp.act = act
    model = plm.wrap(hf.eval(), tiny.tokenizer, name="changed")
    premises = model.site(1).premises
    assert (premises.activation, premises.linearity, premises.met) == (name, linearity, met)
    mlp, seen = hf.transformer.h[1].mlp, []
    handle = mlp.c_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    u = torch.randn(5, tiny.site(1).d_model, generator=torch.Generator().manual_seed(0)) * 2
    with torch.no_grad():
        mlp(u)
        handle.remove()
        torch.testing.assert_close(mlp_of(model.block(1), u).post, seen[0])
    h = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(activation(model.block(1))(h), act(h))
