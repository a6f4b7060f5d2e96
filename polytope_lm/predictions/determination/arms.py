"""The arms: what an MLP's `post`, or its output, becomes when only part of what it is told is kept.

`z` is the token's code, `h` its pre-activations (gated: the gate's), primes are another token's of other documents; the
up branch is the token's own everywhere but in read-outs. Each arm writes one sequence at one layer.

The code of a gated MLP is the gate's; *constant per cell, 2 bits* has the sign of `up` besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from polytope_lm.predictions.determination.fitting import DONORS, Fit

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64

    from polytope_lm.models.gates import Mlp

MEAN = "mean-ablated"
CODE, SIGN, SIMHASH, INDEX = "code", "sign of u", "SimHash, rate-matched", "k-means index of u"
CONSTANT, AFFINE, HARD, CAUSAL = "constant per cell", "affine per cell", "hard gate", "causal bits only"
FLATTENED = "negative side flattened"
READ_OUT = "bits read out by ridge"
REFERENCES = (SIGN, SIMHASH, INDEX)
"""What as many bits, or the bits that there are, are spent on instead."""


@dataclass(frozen=True, eq=False)
class Here:
    """What an arm has at hand of one sequence at one layer, all positions but the first.

    Attributes:
        fit: what is known of the layer.
        donors: by kind, a fitting token for each position; -1 where there is none.
        causal: the neurons that matter most at each position.
        random: as many neurons drawn at random, draw by draw.

    """

    fit: Fit
    donors: Mapping[str, Int64[np.ndarray, " S"]]
    causal: Bool[Tensor, "S N"]
    random: Sequence[Bool[Tensor, "S N"]]


@dataclass(frozen=True, eq=False)
class Arm:
    """One way to keep a part.

    Attributes:
        name: unique in its group.
        group: the arms that it belongs to.
        becomes: the formula.
        write: makes `post`, or where `reads_out` the MLP's output, of one sequence.
        reads_out: `write` makes the output.
        draw: which draw of a random control.
        donor: whose code or magnitudes it takes.

    """

    name: str
    group: str
    becomes: str
    write: Callable[[Here, Mlp], Float[Tensor, "S _"]]
    reads_out: bool = False
    draw: int = 0
    donor: str = ""


def arms(*, gated: bool, draws: int, neurons: int) -> tuple[Arm, ...]:
    """Return all arms, the mean-ablated MLP first; random controls once a draw."""
    lines = "slope h + intercept, means of act'(h) and of act(h) - act'(h) h given z"
    out = [
        Arm(MEAN, MEAN, "mean of post over other documents", lambda here, mlp: here.fit.mean.expand_as(mlp.post)),
        Arm("1 bit", CONSTANT, "mean of post given z", lambda here, mlp: here.fit.one_bit.at(mlp.h > 0)),
        *([Arm("2 bits", CONSTANT, "mean of post given z and the sign of up", _two_bits)] if gated else []),
        Arm("tangent", AFFINE, f"act(h) = {lines}", _tangent),
        Arm("secant", AFFINE, "act(h) = slope h, mean of act(h)/h given z", _secant),
        Arm(HARD, HARD, "act(h) = h 1[h > 0]", lambda _, mlp: _up(mlp.h.clamp(min=0), mlp)),
        Arm(FLATTENED, HARD, "act(h) = its mean where h <= 0, itself where h > 0", _flattened),
    ]
    changes = (
        ("code imposed", "magnitudes kept", "act(|h| (2z' - 1))", _imposed),
        ("magnitudes imposed", "code kept", "act(|h'| (2z - 1))", _magnitudes),
    )
    for what, kept, formula, change in changes:
        for donor in DONORS:
            out.append(Arm(donor, f"{what}, {kept}", formula, _of_donor(donor, change), donor=donor))  # noqa: PERF401
    anyone = DONORS[-1]
    for what, _, formula, change in changes:
        clean = "z' and h' of a random token; the rest clean"
        causal = _of_donor(anyone, change, lambda here: here.causal)
        name, becomes = f"{what}, {neurons} causal", f"{formula} for the neurons that matter most, {clean}"
        out.append(Arm(name, CAUSAL, becomes, causal, donor=anyone))
        name, becomes = f"{what}, {neurons} random", f"{formula} for random neurons, {clean}"
        for draw in range(draws):
            drawn = _of_donor(anyone, change, partial(_drawn, draw=draw))
            out.append(Arm(name, CAUSAL, becomes, drawn, draw=draw, donor=anyone))
    bits = {CODE: "z", SIGN: "1[u > 0]", SIMHASH: "1[g.u > c], as often on as z", INDEX: "the nearest centre's number"}
    for name, features in bits.items():
        becomes = f"output = ridge regression on {features}"
        for draw in range(draws if name == SIMHASH else 1):
            out.append(Arm(name, READ_OUT, becomes, partial(_read_out, name=name, draw=draw), True, draw))  # noqa: PERF401
    return tuple(out)


def _tangent(here: Here, mlp: Mlp) -> Tensor:
    z = mlp.h > 0
    return _up(here.fit.slope.at(z) * mlp.h + here.fit.intercept.at(z), mlp)


def _secant(here: Here, mlp: Mlp) -> Tensor:
    return _up(here.fit.secant.at(mlp.h > 0) * mlp.h, mlp)


def _flattened(here: Here, mlp: Mlp) -> Tensor:
    return torch.where(mlp.h > 0, mlp.post, _up(here.fit.negative, mlp))


def _drawn(here: Here, draw: int) -> Tensor:
    return here.random[draw]


def _read_out(here: Here, mlp: Mlp, name: str, draw: int) -> Tensor:
    return here.fit.readouts[name][draw](mlp)


def _up(on: Tensor, mlp: Mlp) -> Tensor:
    return on.expand_as(mlp.h) if mlp.up is None else on * mlp.up


def _two_bits(here: Here, mlp: Mlp) -> Tensor:
    assert here.fit.two_bits is not None  # noqa: S101 - there is such an arm of gated MLPs only
    assert mlp.up is not None  # noqa: S101
    off, on = here.fit.two_bits
    return torch.where(mlp.up > 0, on.at(mlp.h > 0), off.at(mlp.h > 0))


def _imposed(h: Tensor, other: Tensor) -> Tensor:
    return torch.where((h > 0) == (other > 0), h, -h)


def _magnitudes(h: Tensor, other: Tensor) -> Tensor:
    return torch.where(h > 0, other.abs(), -other.abs())


def _of_donor(
    donor: str, change: Callable[[Tensor, Tensor], Tensor], only: Callable[[Here], Tensor] | None = None
) -> Callable[[Here, Mlp], Tensor]:
    """Change pre-activations by a donor's, of some neurons alone; tokens without a donor stay clean."""

    def write(here: Here, mlp: Mlp) -> Tensor:
        rows = here.donors[donor]
        changed = change(mlp.h, here.fit.donated(np.maximum(rows, 0)))
        there = torch.as_tensor(rows >= 0, device=mlp.h.device)[:, None]
        there = there if only is None else there & only(here)
        return torch.where(there, here.fit.post(torch.where(there, changed, mlp.h), mlp), mlp.post)

    return write
