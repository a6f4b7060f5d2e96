"""From a name, a directory or a loaded model to a `Model`: one door for hub, local and packaged models."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError
from polytope_lm.models import bridge as bridges
from polytope_lm.models.families import (
    Block,
    find_blocks,
    make_site,
    norm_kind,
    survey,
    unbridged,
    weight_and_bias,
)
from polytope_lm.models.sites import Geometry, Site

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
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
        from polytope_lm.models.custom import declare  # noqa: PLC0415 - it imports this module

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


def load(
    name: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Load a model by a packaged name, a directory or a hub name, in this order.

    Args:
        name: `tiny-gpt2`, `tiny-relu`, `smollm2-135m` or `minilm-l6`; a directory (written with a separator,
            such as `./gpt2`); or a name on the model hub, such as `gpt2`.
        device: a torch device.
        dtype: `float32` (the default: half precision flips 0.2 to 0.5 % of the bits), `float16`, `bfloat16`.
        revision: the hub's branch, tag or commit.
        trust_remote_code: run the model repository's own Python code. Off unless you trust it.

    Raises:
        PolytopeError: unknown name, unreachable hub, missing weights, or a model without supported sites.

    """
    if dtype not in DTYPES:
        raise PolytopeError(f"unknown dtype {dtype!r}; choose among {', '.join(DTYPES)}")
    from polytope_lm.models.sources import checked_device, locate, read_model  # noqa: PLC0415 - slow to import

    place = checked_device(device)
    source = locate(name, revision)
    hf, tokenizer, commit = read_model(source, DTYPES[dtype], trust_remote_code=trust_remote_code)
    return _assemble(hf.to(place), tokenizer, source.name, commit or source.revision)


def wrap(model: Any, tokenizer: Any = None, *, name: str | None = None) -> Model:
    """Wrap a transformers model or a `TransformerBridge` that is loaded; it is not copied, nor changed.

    Args:
        model: a transformers model with its tokenizer, or a `TransformerBridge` with unprocessed weights.
        tokenizer: a fast tokenizer; a bridge brings its own, without the BOS that TransformerLens adds to it.
        name: a name for stores and reports; by default the configuration's.

    Raises:
        PolytopeError: a bridge with folded norms, a slow tokenizer, or a model without supported sites.

    """
    lens = model if bridges.is_bridge(model) else None
    if lens is not None:
        name = name or str(getattr(lens.cfg, "model_name", "bridge"))
        bridges.check_raw(lens, name)
        tokenizer = tokenizer or bridges.own_tokenizer(lens, name)
        model = lens.original_model
    if not isinstance(model, nn.Module):
        raise PolytopeError(
            f"can't wrap a {type(model).__name__}: give a transformers model or a TransformerBridge"
        )
    config = getattr(model, "config", None)
    # The last part only: a directory's path says where a machine keeps it, not which model it is.
    name = name or Path(str(getattr(config, "_name_or_path", "") or type(model).__name__)).name
    return _assemble(model, tokenizer, name, None, lens)


def _assemble(hf: nn.Module, tokenizer: Any, name: str, revision: str | None, lens: Any = None) -> Model:
    """Survey a loaded model and put a `Model` together."""
    if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
        raise PolytopeError(
            f"{name}: {type(tokenizer).__name__} is a slow tokenizer; labels need character offsets: pass a "
            f"fast one"
        )
    hf.eval()
    config = (
        lens.cfg if lens is not None and getattr(hf, "config", None) is None else getattr(hf, "config", None)
    )
    trunk = getattr(hf, getattr(hf, "base_model_prefix", "") or "", hf)
    blocks, causal = survey(
        trunk, find_blocks(trunk, name), config, name, getattr(getattr(lens, "cfg", None), "act_fn", None)
    )
    return Model(
        name=name, revision=revision or _fingerprint(hf), hf=hf, tokenizer=tokenizer, trunk=trunk,
        blocks=tuple(blocks), causal=causal, context_length=_context_length(config, tokenizer), lens=lens,
    )  # fmt: skip


def _context_length(config: Any, tokenizer: Any) -> int:
    lengths = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions", "n_ctx")]
    lengths += [getattr(tokenizer, "model_max_length", None)]
    return int(min((n for n in lengths if n), default=sys.maxsize))


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


def _fingerprint(hf: nn.Module) -> str:
    """Hash all weights, so that two models of one name can't share a store."""
    digest = hashlib.sha256()
    for key, value in sorted(hf.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return "weights-" + digest.hexdigest()[:16]


def select_sites(model: Model, layers: Sequence[int] | int | str, kind: str | None) -> tuple[Site, ...]:
    """Return the sites of the layers that a user named.

    Args:
        model: the model.
        layers: indices, one index, or `all` (for a declared hook point: its own).
        kind: a code kind, a declared hook point, or None for the default.

    Raises:
        PolytopeError: no layers, a layer twice, or one out of range.

    """
    declared = tuple(site for site, _, _ in model.custom if site.hook == kind)
    if declared and layers == "all":
        return declared
    if isinstance(layers, str):
        if layers != "all":
            raise PolytopeError(f"layers {layers!r}: give 'all' or a list of indices")
        layers = range(model.n_layers)
    wanted = [layers] if isinstance(layers, (int, np.integer)) else list(layers)
    if not wanted:
        raise PolytopeError("no layers: give at least one index")
    if len(set(wanted)) < len(wanted):
        raise PolytopeError(f"layers {wanted}: each layer once")
    return tuple(model.site(layer, kind) for layer in sorted(wanted))
