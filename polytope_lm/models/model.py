"""A language model with its sites, and the sites that a user declares at any hook point."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError
from polytope_lm.models import bridge as bridges
from polytope_lm.models.families import Block, make_site, norm_kind, unbridged, weight_and_bias
from polytope_lm.models.sites import Geometry, Point, Premises, Site

if TYPE_CHECKING:
    from jaxtyping import Float

_POINTS: dict[str, Point] = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "x",
    "ln2.hook_out": "u",
    "mlp.hook_pre": "h",
    "mlp.hook_pre_linear": "up",
    "mlp.hook_post": "post",
}


@dataclass(frozen=True, eq=False)
class Model:
    """A language model with its sites; made by `load` or `wrap`.

    Attributes:
        name: the name that it was loaded by.
        revision: which weights: the hub's commit, a packaged model's version and checksum, or a hash of the
            weights.
        hf: the transformers model, in eval mode.
        tokenizer: its fast tokenizer.
        trunk: the model without its LM head.
        blocks: its transformer blocks and where their MLPs are read.
        causal: whether a token sees only what comes before it.
        context_length: the longest input, in tokens.
        lens: the `TransformerBridge` that the user brought, if any.
        custom: sites that the user declared, with their weights.

    """

    name: str
    revision: str
    hf: nn.Module
    tokenizer: Any
    trunk: nn.Module
    blocks: tuple[Block, ...]
    causal: bool
    context_length: int
    lens: Any = None
    custom: tuple[tuple[Site, Tensor, Tensor], ...] = field(default=())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' number format."""
        return next(self.hf.parameters()).dtype

    @property
    def attention(self) -> str:
        """The attention implementation; another one may flip bits with `|h| < 1e-4`."""
        if self.lens is not None:
            return (
                "bridge"  # a TransformerBridge computes attention by itself, whatever the configuration says
            )
        return str(getattr(getattr(self.hf, "config", None), "_attn_implementation", None) or "eager")

    @property
    def family(self) -> str:
        """The architecture's class."""
        return type(self.hf).__name__

    @property
    def provenance(self) -> dict[str, str]:
        """What tells the model from others in a result: name, revision, family, dtype, attention."""
        return {
            "model": self.name,
            "revision": self.revision,
            "family": self.family,
            "dtype": str(self.dtype)[6:],
            "attention": self.attention,
        }

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """D, the residual stream's width."""
        return self.sites[0].d_model

    @property
    def has_logits(self) -> bool:
        """Whether the model has an LM head and so a next-token distribution."""
        return self.causal and self.hf is not self.trunk

    @cached_property
    def sites(self) -> Sites:
        """Each layer's default site: `pre`, or `gate` for gated MLPs; then those that the user declared."""
        default = (self.site(layer) for layer in range(self.n_layers))
        return Sites((*default, *(site for site, _, _ in self.custom)))

    @property
    def bridge(self) -> Any:
        """A `TransformerBridge` of this model: the user's own, or one around a copy of it."""
        return self.lens if self.lens is not None else self._built_bridge

    @cached_property
    def _built_bridge(self) -> Any:
        return bridges.build(self.hf, self.tokenizer, self.name)

    def block(self, layer: int) -> Block:
        """Return one block's parts.

        Raises:
            PolytopeError: the layer is out of range.

        """
        if not isinstance(layer, (int, np.integer)) or not 0 <= layer < self.n_layers:
            raise PolytopeError(
                f"{self.name}: no layer {layer!r}; it has {self.n_layers}, from 0 to {self.n_layers - 1}"
            )
        return self.blocks[layer]

    def site(self, layer: int, kind: str | None = None) -> Site:
        """Return the site of a layer.

        Args:
            layer: the block's index, from 0.
            kind: `pre` for plain MLPs; `gate` (the default), `up` or `gate+up` for gated ones; or the name of
                a hook point that was declared with `with_site`.

        Raises:
            PolytopeError: no such layer, or no such kind here.

        """
        for site, _, _ in self.custom:
            if kind == site.hook and layer == site.layer:
                return site
        block = self.block(layer)
        kinds = ("gate", "up", "gate+up") if "gate" in block.pre else ("pre",)
        if kind is not None and kind not in kinds:
            raise PolytopeError(
                f"{self.name}, layer {layer}: no code kind {kind!r}; choose among {', '.join(kinds)}"
            )
        return make_site(block, int(layer), kind or kinds[0])

    def with_site(self, hook: str, weight: Any, bias: Any = None) -> Model:
        """Return the model with one more site: `h = W a + b` of any hook point's activation `a`.

        Args:
            hook: TransformerLens's name of the hook point, such as `blocks.4.hook_resid_post`.
            weight: W, `[N, width of a]`.
            bias: b, `[N]`; zeros by default.

        Raises:
            PolytopeError: the bridge has no such hook point, or the shapes do not fit.

        """
        extended = replace(self, custom=(*self.custom, declare(self, hook, weight, bias)))
        if "_built_bridge" in vars(self):  # a second bridge would be a third copy of the weights
            vars(extended)["_built_bridge"] = self._built_bridge
        return extended

    def geometry(self, site: Site) -> Geometry:
        """Return the numbers behind a site, as float32 arrays: `h = W (gain * C x / sigma + shift) + b`.

        Args:
            site: a site of this model.

        """
        if site.kind == "custom":
            _, weight, bias = next(entry for entry in self.custom if entry[0] == site)
            ones = np.ones(site.d_model, np.float32)
            return Geometry(_array(weight), _array(bias), ones, 0 * ones, 0.0, "none")
        block = self.block(site.layer)
        parts = [weight_and_bias(block.pre[kind]) for kind in site.kind.split("+")]
        weights = np.concatenate([_array(w) for w, _ in parts])
        biases = np.concatenate(
            [_array(b) if b is not None else np.zeros(len(w), np.float32) for w, b in parts]
        )
        gain, shift, eps = _norm_numbers(block.norm)
        return Geometry(weights, biases, gain, shift, eps, norm_kind(block.norm))

    def __repr__(self) -> str:
        sees = "causal" if self.causal else "bidirectional"
        head = f"{self.name} ({self.family}, {sees}, {self.n_layers} layers"
        return f"{head}, context {self.context_length}, {str(self.dtype)[6:]}, {self.attention} attention)"


class Sites(tuple[Site, ...]):
    """The sites of a model, shown as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        lines = [f"{'site':<12}{'bits':>7}  {'hook point':<30}premises"]
        lines += [f"{s.key:<12}{s.width:>7}  {s.hook:<30}{s.premises}" for s in self]
        return "\n".join(lines)


def declare(model: Model, hook: str, weight: Any, bias: Any = None) -> tuple[Site, Tensor, Tensor]:
    """Check and describe a declared site.

    Args:
        model: the model that has the hook point.
        hook: TransformerLens's canonical name, `blocks.LAYER.…`.
        weight: W, `[N, width of the activation]`.
        bias: b, `[N]`, or None.

    Returns:
        The site, its W and its b.

    Raises:
        PolytopeError: an unknown hook point, shapes that do not fit, or numbers that are
            not finite.

    """
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    if found is None:
        raise PolytopeError(
            f"hook point {hook!r}: expected TransformerLens's name, such as blocks.4.hook_resid_post"
        )
    layer = int(found[1])
    model.block(layer)
    if any(site.hook == hook for site, _, _ in model.custom):
        raise PolytopeError(
            f"{model.name}: {hook!r} has a declared site already; declare the other one on the model without "
            f"it"
        )
    if known_point(model, hook) is None:
        _check_bridge(model, hook)
    W = _numbers(hook, "weight", weight)
    if W.ndim != 2:
        raise PolytopeError(
            f"{hook}: weight has shape {tuple(W.shape)}, expected [N, width of the activation]"
        )
    b = torch.zeros(len(W)) if bias is None else _numbers(hook, "bias", bias)
    if b.shape != (len(W),):
        raise PolytopeError(
            f"{hook}: bias has shape {tuple(b.shape)}, expected [{len(W)}] as the weight has {len(W)} rows"
        )
    expected = _width(model, layer, known_point(model, hook))
    if expected not in {None, W.shape[1]}:
        raise PolytopeError(f"{hook}: weight takes {W.shape[1]} values, the activation there has {expected}")
    premises = Premises("unknown", "none", bool((b != 0).any()), "none")
    return Site(layer, "custom", hook, W.shape[0], W.shape[1], premises), W, b


def _numbers(hook: str, what: str, value: Any) -> Tensor:
    """Read a weight or a bias as float32; refuse what is no array of finite numbers."""
    try:
        tensor = torch.as_tensor(value, dtype=torch.float32).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise PolytopeError(
            f"{hook}: {what} of type {type(value).__name__} is no array of numbers: give a tensor or an array"
        ) from error
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise PolytopeError(
            f"{hook}: {bad} of {tensor.numel()} values of {what} are NaN or infinite: mend it"
        )
    return tensor


def weights_digest(weight: Tensor, bias: Tensor) -> str:
    """Hash a declared site's numbers, so that two sites of one hook point can't share a store."""
    digest = hashlib.sha256()
    for tensor in (weight, bias):
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def _check_bridge(model: Model, hook: str) -> None:
    """Make sure that the bridge has a hook point, and that it can be read there."""
    if not model.causal:
        raise PolytopeError(
            f"{model.name}: declared hook points outside the MLP need a causal model; {hook!r} is outside"
        )
    if hook not in model.bridge.hook_dict:
        raise PolytopeError(f"{model.name} has no hook point {hook!r}; model.bridge.hook_dict lists them")


def _width(model: Model, layer: int, point: str | None) -> int | None:
    """Return how wide a known point is, None for a hook point that only the bridge has."""
    site = model.site(layer)
    return None if point is None else site.width if point in {"h", "up", "post"} else site.d_model


def known_point(model: Model, hook: str) -> Point | None:
    """Return the trunk's own reading point for a hook name, or None where only the bridge has it."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    block = model.block(int(found[1])) if found else None
    if found is None or block is None:
        return None
    if found[2] == "hook_resid_mid" and (block.parallel or block.post_norm):
        return None
    return _POINTS.get(found[2])


def _norm_numbers(norm: nn.Module) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"], float]:
    """Return gain, shift and eps; the gain as the module shows it, so that Gemma's `1 + g` needs no rule."""
    inner = unbridged(norm)
    weight: Tensor = inner.weight
    eps = float(next(v for n in ("eps", "variance_epsilon") if (v := getattr(inner, n, None)) is not None))
    shift = getattr(inner, "bias", None)
    gain = weight.detach().double()
    if norm_kind(norm) == "RMSNorm":
        # On a vector of ones the RMS is one, so the output is the gain but for eps.
        with torch.no_grad():
            shown = inner(torch.ones_like(weight)).double() * (1 + eps) ** 0.5
        if (shown - gain).abs().max() > (shown - gain - 1).abs().max():
            gain = gain + 1
    return _array(gain), _array(shift) if shift is not None else np.zeros(len(weight), np.float32), eps


def _array(tensor: Tensor) -> Float[np.ndarray, ...]:
    return np.ascontiguousarray(tensor.detach().float().cpu().numpy())
