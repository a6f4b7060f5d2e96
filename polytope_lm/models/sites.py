"""Where codes live: a site is one linear map of a network whose output's sign says which neurons are on.

For one transformer block, `x` in R^D is the residual stream that the MLP's norm reads, `u = Norm(x)` the MLP's input,
and `h = W u + b` in R^N the pre-activations. The code is `z = 1[h > 0]` (Balestriero & Baraniuk, "A Spline Theory of
Deep Networks", ICML 2018; Black et al., "Interpreting Neural Networks through the Polytope Lens", 2022).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import quote

import numpy as np

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

Linearity = Literal[
    "piecewise affine", "piecewise affine, further kinks", "piecewise quadratic", "smooth", "gated", "routed", "unknown"
]
NormKind = Literal["LayerNorm", "RMSNorm", "none"]

Point = Literal["x", "u", "h", "gate", "up", "post", "chosen", "resid_pre", "resid_post"]
"""What can be read of a block: `x` the stream that the MLP's norm reads, `u` the MLP's input, `h` the
pre-activations (`gate` for gated MLPs, the logits of a router), `gate` and `up` a gated MLP's branches, `post` the
down projection's input, `chosen` the experts that a router chose, k-hot, `resid_pre` the block's input, `resid_post`
its output."""

_KINDS = ("pre", "gate", "up", "gate+up", "router", "custom")
_LONGEST = 200  # characters of a name: file systems take 255 bytes

_FROM_THE_PAPER = get_args(Linearity)  # nearest first

_ACTIVATIONS: dict[Linearity, frozenset[str]] = {
    "piecewise affine": frozenset({"relu", "leaky_relu", "prelu", "rrelu", "jumprelu"}),
    "piecewise affine, further kinks": frozenset({"relu6", "hardtanh", "threshold", "softshrink"}),
    "piecewise quadratic": frozenset({"relu2"}),
    "smooth": frozenset(
        {"gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python", "gelu_accurate", "gelu_10",
         "gelu_python_tanh", "quick_gelu", "silu", "swish", "mish", "tanh", "sigmoid", "laplace"}
    ),
}  # fmt: skip


def linearity_of(activation: str, *, gated: bool) -> Linearity:
    """Say what an MLP is inside one region of its code, by its activation's name."""
    named = (linearity for linearity, names in _ACTIVATIONS.items() if activation in names)
    return "gated" if gated else next(named, "unknown")


@dataclass(frozen=True)
class Premises:
    """What a site has of the paper's assumptions: a piecewise-affine activation, and biases.

    Attributes:
        linearity: `piecewise affine` (ReLU), the same with `further kinks` that the code does not show
            (ReLU6, Hardtanh), `piecewise quadratic` (squared ReLU), `smooth` (GELU, SiLU) or `gated` (`act(g) * up`:
            quadratic inside a region), `routed` (a mixture of experts). `unknown` for other activations and for
            a declared hook point.
        activation: the activation's name in the model's own configuration; `top 2 of 8` of a router.
        biased: whether any boundary can miss the origin of `u`-space.
        norm: the norm between the residual stream and the site.

    """

    linearity: Linearity
    activation: str
    biased: bool
    norm: NormKind

    @property
    def met(self) -> bool:
        """Whether the paper's premises hold: piecewise affine with biases."""
        return self.linearity == "piecewise affine" and self.biased

    def __str__(self) -> str:
        bias = "with biases" if self.biased else "without biases"
        norm = "no norm" if self.norm == "none" else self.norm
        verdict = "" if self.met else "; outside the paper's premises"
        return f"{self.linearity} ({self.activation}), {bias}, {norm} before it{verdict}"


@dataclass(frozen=True)
class Site:
    """One site, as plain data: it travels with codes, stores and results without the model.

    Attributes:
        layer: the block's index, from 0.
        kind: `pre` for plain MLPs; `gate`, `up` or `gate+up` (2N bits) for gated ones; `router` (k-hot, of E
            experts) for mixtures of experts; `custom` for a user's own.
        hook: TransformerLens's name of the hook point, such as `blocks.8.mlp.hook_pre`.
        width: N, the number of bits.
        d_model: D, the width of `u`.
        premises: what the site has of the paper's assumptions.
        parallel: the MLP reads the block's input (`resid_pre`), not the stream after attention.
        post_norm: the norm's output is itself the stream that is carried on (BERT, OPT-350m).

    """

    layer: int
    kind: Literal["pre", "gate", "up", "gate+up", "router", "custom"]
    hook: str
    width: int
    d_model: int
    premises: Premises
    parallel: bool = False
    post_norm: bool = False

    @property
    def key(self) -> str:
        """A short name, unique in one model and safe as a file name."""
        if self.kind == "custom":
            return "custom." + quote(self.hook, safe="")
        return f"L{self.layer:02d}.{self.kind}"

    @property
    def name(self) -> str:
        """What to ask a model or codes for as `kind`: the kind, or the hook point that a user declared."""
        return self.hook if self.kind == "custom" else self.kind

    @property
    def place(self) -> str:
        """What a sentence calls it: `Layer 8`."""
        return f"Layer {self.layer}"

    @property
    def components(self) -> tuple[Site, ...]:
        """The sites that it is made of: itself, but for a `JoinedSite`."""
        return (self,)

    @property
    def n_bytes(self) -> int:
        """Bytes of one packed code, ceil(N/8)."""
        return -(-self.width // 8)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data; `from_dict` is its inverse."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Any) -> Site:
        """Rebuild a site from `to_dict`'s data, which may come from a file that anybody wrote."""
        if isinstance(data, dict) and "parts" in data:
            return join([Site.from_dict(part) for part in data["parts"]])
        try:
            site = Site(**{**data, "premises": Premises(**data["premises"])})
        except (TypeError, KeyError) as error:
            raise PolytopeError(f"no site: {str(data)[:80]!r}") from error
        premises, numbers = site.premises, (site.layer, site.width, site.d_model)
        texts = (site.hook, premises.linearity, premises.activation, premises.norm)
        typed = ((str, texts), (int, numbers), (bool, (site.parallel, site.post_norm, premises.biased)))
        if not all(type(value) is kind for kind, values in typed for value in values):
            raise PolytopeError(f"a site with values of the wrong type: {str(data)[:80]!r}")
        if site.kind not in _KINDS or site.layer < 0 or min(numbers[1:]) < 1 or len(site.key) > _LONGEST:
            raise PolytopeError(f"an impossible site: {str(data)[:80]!r}")
        return site


@dataclass(frozen=True)
class JoinedSite(Site):
    """Several layers' sites side by side, as one: from `join`.

    `layer` is the last layer's, from which on the whole code is known; widths are sums.

    Attributes:
        parts: the sites, in layer order.

    """

    parts: tuple[Site, ...] = ()

    @property
    def key(self) -> str:
        """A short name such as `L04+08.pre` or `L00-11.gate`."""
        return super().key if self.kind == "custom" else f"L{self._layers(2, '+')}.{self.kind}"

    @property
    def place(self) -> str:
        """What a sentence calls it: `Layers 4 + 8`."""
        return f"Layers {self._layers(1, ' + ')}"

    @property
    def components(self) -> tuple[Site, ...]:
        """The sites that it is made of."""
        return self.parts

    def _layers(self, digits: int, between: str) -> str:
        """Write the layers, three or more in a row as a range."""
        texts: list[str] = []
        for _, group in groupby(enumerate(part.layer for part in self.parts), lambda pair: pair[1] - pair[0]):
            run = [f"{layer:0{digits}}" for _, layer in group]
            texts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else run
        return between.join(texts)


def join(sites: Sequence[Site]) -> Site:
    """Return the site of several layers' codes side by side, in layer order; of one site, itself.

    Premises hold where they hold in every part; where they differ, the one furthest from the paper's is named.
    """
    parts = tuple(sorted(sites, key=lambda site: site.layer))
    if len(parts) == 1:
        return parts[0]
    layers = [site.layer for site in parts]
    if len(set(layers)) < max(len(layers), 1):
        raise PolytopeError(f"layers {layers} can't be joined: give one or more, each once")
    for what, values in (("kinds", {site.kind for site in parts}), ("norms", {site.premises.norm for site in parts})):
        if len(values) > 1:
            keys = ", ".join(site.key for site in parts)
            raise PolytopeError(f"{keys} have different {what} ({', '.join(sorted(values))}); join equal ones")
    given = [site.premises for site in parts]
    return JoinedSite(
        layer=layers[-1],
        kind=parts[0].kind,
        hook="+".join(site.hook for site in parts),
        width=sum(site.width for site in parts),
        d_model=sum(site.d_model for site in parts),
        premises=Premises(
            linearity=max((premises.linearity for premises in given), key=_FROM_THE_PAPER.index),
            activation="+".join(dict.fromkeys(premises.activation for premises in given)),
            biased=all(premises.biased for premises in given),
            norm=given[0].norm,
        ),
        parallel=any(site.parallel for site in parts),
        post_norm=any(site.post_norm for site in parts),
        parts=parts,
    )


@dataclass(frozen=True)
class Geometry:
    """The numbers behind a site: `h = W (gain * C x / sigma + shift) + b`, `sigma^2 = |C x|^2 / D + eps`.

    `C` subtracts the mean over coordinates for a LayerNorm and is the identity for an RMSNorm; without a norm `u = x`.

    Attributes:
        weight: W, `[N, D]`.
        bias: b, `[N]`; zeros where the site has none.
        gain: the norm's gain, `[D]` (for Gemma already `1 + g`); ones without a norm.
        shift: the norm's bias, `[D]`; zeros where there is none.
        eps: the norm's epsilon, added to the mean square.
        norm: which norm.

    """

    weight: Float[np.ndarray, "N D"]
    bias: Float[np.ndarray, " N"]
    gain: Float[np.ndarray, " D"]
    shift: Float[np.ndarray, " D"]
    eps: float
    norm: NormKind


def width_of(site: Site, name: str | None = None) -> int:
    """Return the number of columns: bytes of a packed code (None), or of an activation."""
    if name is None:
        return site.n_bytes
    if len(site.components) > 1:
        return sum(width_of(part, name) for part in site.components)
    if name in {"x", "u"}:
        return site.d_model
    return site.width if name == "h" else site.width // len(site.kind.split("+"))


def columns_of(site: Site | None, name: str) -> list[slice]:
    """Return each layer's columns of an activation of joined sites; all columns, of one site or None."""
    if site is None or len(site.components) == 1:
        return [slice(None)]
    ends = np.cumsum([0, *(width_of(part, name) for part in site.components)])
    return [slice(int(start), int(stop)) for start, stop in pairwise(ends)]
