"""Finding a block's norm, pre-activations and down projection in a loaded model.

Names only propose; a probe decides. A short forward pass shows which norm's output the MLP reads, whether that norm
reads the block's own input (parallel blocks), whether its output is the stream that is carried on (post-norm), and
whether `u = Norm(x)` and `h = W u + b` hold with the weights that the modules show (they do not for adapters that are
not merged, nor for quantised weights). Nothing is concluded from a family's name.

A mixture of experts has no single MLP: its site is the router, `r = W u (+ b)`, whose code is the set of experts that
its own call returned, whatever it does between `r` and its choice (groups, correction biases). Its probe shows which of
the things that it returns are the logits and which the indices of the chosen.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError
from polytope_lm.models.piecewise import PiecewiseAffine, piecewise_affine
from polytope_lm.models.sites import NormKind, Premises, Site, linearity_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BLOCK_LISTS = (
    "h", "layers", "blocks", "decoder.layers", "encoder.layer", "encoder.layers", "transformer.layer",
    "language_model.layers",
)  # fmt: skip
MLP_PATHS = ("mlp", "feed_forward", "ffn", "")
FUSED = ("gate_up_proj", "Wi")  # both branches in one map: the gate first
PLAIN_PRE = ("c_fc", "dense_h_to_4h", "fc1", "fc_in", "intermediate.dense", "lin1", "up_proj")
DOWN = ("c_proj", "dense_4h_to_h", "fc2", "fc_out", "output.dense", "down_proj", "Wo", "lin2")
ACTS = ("act", "act_fn", "activation_fn", "activation", "gelu_impl", "intermediate.intermediate_act_fn")
ACTIVATION_CLASSES = {
    "NewGELUActivation": "gelu_new", "GELUActivation": "gelu", "GELU": "gelu",
    "GELUTanh": "gelu_pytorch_tanh", "PytorchGELUTanh": "gelu_pytorch_tanh",
    "BloomGelu": "gelu_pytorch_tanh", "FastGELUActivation": "gelu_fast",
    "QuickGELUActivation": "quick_gelu", "SiLUActivation": "silu", "SiLU": "silu",
    "ReLU": "relu", "ReLU6": "relu6", "ReLUSquaredActivation": "relu2", "LeakyReLU": "leaky_relu", "PReLU": "prelu",
    "RReLU": "rrelu", "Hardtanh": "hardtanh", "Threshold": "threshold", "Softshrink": "softshrink",
}  # fmt: skip
MIXTURE_PATHS = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe")
ROUTERS = ("gate", "router")
EXPERTS = ("experts", "router", "block_sparse_moe", "gate")


@dataclass(frozen=True)
class Routing:
    """Where a router's logits and the indices of the experts that it chose stand in what its call returns."""

    logits: int
    chosen: int


@dataclass(frozen=True)
class Block:
    """One transformer block's parts, as modules of the loaded model.

    Attributes:
        pre: the linear maps whose output is binarised, by kind (`pre`, or `gate` and `up`); or the `router`.
        down: the down projection; its input is `post`. Of a mixture of experts the whole MLP.
        fused: gate and up are the two halves of one map's output.
        norm: the module whose input is `x`: the norm, or where there is none the first linear map.
        norm_offset: what is added to the norm's weight to give its gain (Gemma: 1).
        parallel: the norm reads the block's input.
        post_norm: the norm's output is carried on as the residual stream.
        widths: N by kind.
        returns: type and length of what the block returns; None for a tensor.
        streams: the block carries one stream, `[B, S, D]`; Gemma 3n carries several.
        inexact: why the modules' weights do not give `h`; empty where they do.
        routing: where to read a router's output; None where there is none.
        act: the activation's own module, where it holds numbers that its name does not tell: slopes, bounds.

    """

    module: nn.Module
    pre: Mapping[str, nn.Module]
    down: nn.Module
    activation: str
    fused: bool = False
    norm: nn.Module = field(default_factory=nn.Identity)
    norm_kind: NormKind = "none"
    norm_offset: int = 0
    parallel: bool = False
    post_norm: bool = False
    widths: Mapping[str, int] = field(default_factory=dict)
    d_model: int = 0
    returns: tuple[type, int] | None = None
    streams: bool = True
    inexact: str = ""
    routing: Routing | None = None
    act: nn.Module | None = None

    @property
    def bends(self) -> PiecewiseAffine | None:
        """The activation's break points and slopes; None where it is not affine between them."""
        return piecewise_affine(nn.ReLU() if self.act is None and self.activation == "relu" else self.act)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of code that the block has, the default first."""
        return ("gate", "up", "gate+up") if "gate" in self.pre else tuple(self.pre)

    def values(self, kind: str, out: Any) -> Tensor:
        """Return what one kind's module puts out: its columns; a router's logits, or k-hot those it has `chosen`.

        Where a logit is NaN or infinite it stands in the place of its bit, so that no choice is made of it.
        """
        if self.routing is None:
            return stream_of(out)[..., self.columns(kind)]
        logits: Tensor = out[self.routing.logits]
        if kind == "router":
            return logits
        chosen = out[self.routing.chosen].reshape(*logits.shape[:-1], -1)
        return torch.zeros_like(logits).scatter_(-1, chosen, 1.0).where(logits.isfinite(), logits)

    def columns(self, kind: str) -> slice:
        """Return the columns of one kind in its map's output."""
        if not self.fused:
            return slice(None)
        half = self.widths["gate"]
        return slice(half) if kind == "gate" else slice(half, None)

    def numbers(self, kind: str) -> tuple[Tensor, Tensor | None]:
        """Return one kind's W, `[N, D]`, and b, `[N]` or None."""
        weight, bias = weight_and_bias(self.pre[kind])
        rows = self.columns(kind)
        return weight[rows], None if bias is None else bias[rows]

    def norm_numbers(self) -> tuple[Tensor, Tensor, float]:
        """Return the norm's gain and shift, `[D]`, and its epsilon; 1, 0 and 0 without a norm."""
        return _norm_numbers(self.norm, self.norm_kind, self.norm_offset, self.d_model)

    def packed(self, out: Tensor) -> Any:
        """Put a stream into what the block returns."""
        if self.returns is None:
            return out
        kind, length = self.returns
        return kind([out] + [None] * (length - 1))


@dataclass
class _Probe:
    """What one forward pass of two short sequences showed of a block."""

    block_in: Tensor | None = None
    block_out: Any = None
    u: Tensor | None = None
    h: dict[str, Any] = field(default_factory=dict)
    down_out: Tensor | None = None
    norms: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def saw_block(self, _module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self.block_in = args[0] if args else kwargs["hidden_states"]
        self.block_out = out

    def saw_pre(self, kind: str, _module: nn.Module, args: Any, out: Any) -> None:
        self.u, self.h[kind] = args[0], out

    def saw_norm(self, path: str, _module: nn.Module, args: Any, out: Tensor) -> None:
        self.norms.setdefault(path, (args[0], out))

    def saw_down(self, _module: nn.Module, _args: Any, out: Any) -> None:
        self.down_out = stream_of(out)


def stream_of(out: Any) -> Tensor:
    """Return the residual stream in what a block returns: a tensor, or the first of a tuple or list."""
    stream: Tensor = out[0] if isinstance(out, (tuple, list)) else out
    return stream


def resolve(module: nn.Module, path: str) -> Any:
    """Return the submodule at a dotted path, or None; it sees through TransformerLens's bridges too."""
    for name in filter(None, path.split(".")):
        module = getattr(module, name, None)  # type: ignore[assignment]
        if module is None:
            return None
    return module


def unbridged(module: nn.Module) -> Any:
    """Return the module that holds the numbers, where a TransformerLens bridge has wrapped it."""
    while isinstance(inner := getattr(module, "original_component", None), nn.Module):
        module = inner
    return module


def find_blocks(trunk: nn.Module, name: str) -> nn.ModuleList:
    """Return the list of transformer blocks of a trunk, in one of the known places."""
    for path in BLOCK_LISTS:
        blocks = resolve(trunk, path)
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            return blocks
    if hasattr(trunk, "merge_and_unload"):
        raise PolytopeError(
            f"{name}: an adapter around a model: wrap model.merge_and_unload(), or, for codes "
            "without closed forms, model.get_base_model()"
        )
    raise PolytopeError(
        f"{name}: {type(trunk).__name__} is of an unknown family: no list of blocks among "
        f"{', '.join(BLOCK_LISTS)}; `polytope-lm models` lists the known families"
    )


def survey(
    trunk: nn.Module, blocks: nn.ModuleList, config: Any, name: str, act: str | None = None
) -> tuple[list[Block], bool]:
    """Describe every block after one probing forward pass of the trunk in eval mode.

    `act` names the activation where the modules do not hold it. Also return whether the model is causal: what comes
    later leaves what came before unchanged.
    """
    drafts = [_draft(block, layer, config, name, act) for layer, block in enumerate(blocks)]
    probes = _probe(trunk, drafts, int(getattr(config, "vocab_size", 0) or 50), name)
    for layer, probe in enumerate(probes):
        if "router" in drafts[layer].pre:
            drafts[layer] = _routed(drafts[layer], probe, f"{name}, layer {layer}")
            probe.h = {"router": drafts[layer].values("router", probe.h["router"])}
    # Rows of the batch are compared position by position; NaN from some layer on says nothing there.
    causal = all(_same(out[..., 0, :3, :], out[..., 1, :3, :]) for out in (stream_of(p.block_out) for p in probes))
    read = [(probe.u, probe.down_out, *probe.h.values()) for probe in probes]
    finite = [n for n, those in enumerate(read) if all(v is not None and bool(torch.isfinite(v).all()) for v in those)]
    found = {layer: _settle(drafts[layer], probes[layer], layer, name) for layer in finite}
    if not found:
        raise PolytopeError(
            f"{name}: NaN or infinite values in layer 0, and in every other: mend the weights, or load float32"
        )
    why = "NaN or infinite values there: mend the weights, or load float32"
    for layer in set(range(len(drafts))) - set(finite):  # its values say nothing: it is built as the others
        own = drafts[layer]
        alike = next((found[n] for n in reversed(finite) if found[n].pre.keys() == own.pre.keys()), None)
        if alike is None:
            raise PolytopeError(f"{name}, layer {layer}: {why}")
        path = next((p for p, m in alike.module.named_modules() if m is alike.norm), "")
        found[layer] = replace(
            alike, module=own.module, pre=own.pre, down=own.down, norm=resolve(own.module, path),
            inexact=f"{name}, layer {layer}: {why}",
        )  # fmt: skip
    return [found[layer] for layer in range(len(drafts))], causal


def make_site(block: Block, layer: int, kind: str) -> Site:
    """Describe one site of a block, of kind `pre`, `gate`, `up`, `gate+up` or `router`, as plain data."""
    parts = kind.split("+")
    biased = any(getattr(unbridged(block.pre[part]), "bias", None) is not None for part in parts)
    linearity = linearity_of(block.activation, gated="gate" in block.pre)
    if kind == "router":  # a correction of the choice is no bias of `r`, and still moves boundaries off the origin
        linearity, router = "routed", unbridged(block.pre[kind])
        biased = any(v.numel() == block.widths[kind] for v in (*router.parameters(), *router.buffers()))
    premises = Premises(linearity, block.activation, biased, block.norm_kind)
    hook = f"blocks.{layer}.mlp." + {"up": "hook_pre_linear", "router": "gate.hook_out"}.get(kind, "hook_pre")
    width = sum(block.widths[part] for part in parts)
    return Site(layer, kind, hook, width, block.d_model, premises, block.parallel, block.post_norm)  # type: ignore[arg-type]


def weight_and_bias(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return W as `[N, D]` and b as `[N]` or None, also for GPT-2's `Conv1D`, which stores `W` transposed."""
    inner = unbridged(linear)
    weight, bias = inner.weight.detach(), getattr(inner, "bias", None)
    weight = weight.T if type(inner).__name__ == "Conv1D" else weight
    return weight, None if bias is None else bias.detach()


def _draft(block: nn.Module, layer: int, config: Any, name: str, act: str | None) -> Block:
    """Propose a block's parts by name; the norm stays open until the probe."""
    for path in MLP_PATHS:
        mlp = resolve(block, path)
        down = None if mlp is None else _first(mlp, DOWN)
        if down is None:
            continue
        own = _own_activation(mlp) if act is None else None
        name_of = act or _activation(own, config)
        numbered = own if piecewise_affine(own) else None
        if (gate := resolve(mlp, "gate_proj")) is not None and (up := resolve(mlp, "up_proj")) is not None:
            return Block(block, {"gate": gate, "up": up}, down, name_of, act=numbered)
        if (both := _first(mlp, FUSED)) is not None:
            return Block(block, {"gate": both, "up": both}, down, name_of, fused=True, act=numbered)
        if (pre := _first(mlp, PLAIN_PRE)) is not None:
            return Block(block, {"pre": pre}, down, name_of, act=numbered)
    for path in MIXTURE_PATHS:
        mlp = resolve(block, path)
        if isinstance(router := None if mlp is None else _first(mlp, ROUTERS), nn.Module):
            return Block(block, {"router": router}, mlp, "")
    mlp = next((m for p in MLP_PATHS if (m := resolve(block, p)) is not None), block)
    where = f"{name}, layer {layer}: "
    if any(resolve(m, e) is not None for m in (mlp, block) for e in EXPERTS):
        raise PolytopeError(
            f"{where}its MLP ({type(mlp).__name__}) is a mixture of experts without a router of its own among "
            f"{', '.join(ROUTERS)}, so it has no code; choose another model"
        )
    raise PolytopeError(
        f"{where}unknown MLP {type(mlp).__name__} with {[n for n, _ in mlp.named_children()]}; expected one "
        f"of {', '.join(PLAIN_PRE)}, gate_proj and up_proj, or {' or '.join(FUSED)}"
    )


def _routed(draft: Block, probe: _Probe, where: str) -> Block:
    """Find a router's logits and the experts that it chose in what its call returned.

    The chosen are the integers, k for each token; the logits are the wider floats, where there are several (scores
    beside logits) the ones that `W u + b` gives.
    """
    router, u = draft.pre["router"], probe.u
    assert u is not None  # noqa: S101 - the probe reached this router
    out = probe.h["router"]
    parts = list(out) if isinstance(out, (tuple, list)) else [out]
    chosen = [i for i, p in enumerate(parts) if isinstance(p, Tensor) and p.dtype in {torch.int64, torch.int32}]
    k = parts[chosen[0]].shape[-1] if chosen else 0
    wide = [i for i, p in enumerate(parts) if isinstance(p, Tensor) and p.is_floating_point() and p.shape[-1] > k]
    if not chosen or not wide:
        what = "indices of the experts that it chose (no top-k)" if not chosen else "logits of all experts"
        raise PolytopeError(
            f"{where}: its router ({type(unbridged(router)).__name__}) returns no {what}, so it has no code; choose "
            f"a model whose router returns logits and indices, as Mixtral's does, or a dense one"
        )

    def off(i: int) -> float:
        try:
            weight, bias = weight_and_bias(router)
            mine = u.float().reshape(-1, u.shape[-1]) @ weight.float().T + (0.0 if bias is None else bias.float())
            return float((mine - parts[i].reshape(len(mine), -1)).abs().max())
        except (AttributeError, RuntimeError, TypeError):
            return 0.0  # it shows no weights: the first is taken, and closed forms are refused

    logits = min(wide, key=off)
    return replace(draft, routing=Routing(logits, chosen[0]), activation=f"top {k} of {parts[logits].shape[-1]}")


def _first(module: nn.Module, paths: tuple[str, ...]) -> Any:
    return next((m for p in paths if (m := resolve(module, p)) is not None), None)


def _own_activation(mlp: nn.Module) -> nn.Module | None:
    """Return the module that is the MLP's activation, where it is of a known class."""
    there = (unbridged(found) for name in ACTS if (found := resolve(mlp, name)) is not None)
    return next((found for found in there if type(found).__name__ in ACTIVATION_CLASSES), None)


def _activation(own: nn.Module | None, config: Any) -> str:
    """Name the activation by its own module, else by the configuration."""
    if own is not None:
        return ACTIVATION_CLASSES[type(own).__name__]
    for name in ("hidden_activation", "activation_function", "hidden_act", "activation", "afn"):
        if value := getattr(config, name, None):
            return str(value)
    return "unknown"


@torch.no_grad()
def _probe(trunk: nn.Module, drafts: Sequence[Block], vocab: int, name: str) -> list[_Probe]:
    """Run two sequences of four tokens that differ in the last one, and keep what every block did."""
    probes = [_Probe() for _ in drafts]
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]]) % vocab
    with ExitStack() as stack:
        for draft, probe in zip(drafts, probes, strict=True):
            inner = draft.module.named_modules()
            handles = [
                draft.module.register_forward_hook(probe.saw_block, with_kwargs=True),
                draft.down.register_forward_hook(probe.saw_down),
                *(m.register_forward_hook(partial(probe.saw_pre, kind)) for kind, m in draft.pre.items()),
                *(
                    m.register_forward_hook(partial(probe.saw_norm, p))
                    for p, m in inner
                    if "norm" in type(unbridged(m)).__name__.lower()
                ),
            ]
            for handle in handles:
                stack.callback(handle.remove)
        try:
            trunk(ids.to(next(trunk.parameters()).device))
        except (TypeError, ValueError, RuntimeError, NotImplementedError, IndexError, KeyError) as error:
            said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
            raise PolytopeError(
                f"{name}: {type(trunk).__name__} can't read token ids alone ({said}); give a text model"
            ) from error
    silent = next((layer for layer, probe in enumerate(probes) if not probe.h), None)
    if silent is not None:
        raise PolytopeError(f"{name}, layer {silent}: a forward pass never reached its MLP")
    return probes


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors hold the same bits (NaN too), whatever their leading shape: OPT flattens before its MLP.

    One tensor read twice is the same to the bit, so a small attention output can't pass for none.
    """
    if a is None or b is None or a.numel() != b.numel():
        return False
    return torch.allclose(a.reshape(-1), b.reshape(-1), rtol=0, atol=0, equal_nan=True)


def _settle(draft: Block, probe: _Probe, layer: int, name: str) -> Block:
    """Choose the norm that the probe showed before the MLP, and check the formulas with its numbers."""
    u, out, down_out, block_in = probe.u, stream_of(probe.block_out), probe.down_out, probe.block_in
    assert u is not None  # noqa: S101 - the probe reached this MLP
    assert down_out is not None  # noqa: S101
    where = f"{name}, layer {layer}"
    paths = [p for p, (_, normed) in probe.norms.items() if _same(normed, u)]
    # The very tensor: two norms of equal weights put out the same where attention adds nothing.
    path = next((p for p in paths if probe.norms[p][1].data_ptr() == u.data_ptr()), (*paths, None)[0])
    added = [down_out, *(normed for _, normed in probe.norms.values() if normed.numel() == u.numel())]
    one = out.numel() == u.numel()
    carried = one and any(_same(out, u.reshape(out.shape) + a.reshape(out.shape)) for a in added)
    if path is None and not carried:
        raise PolytopeError(
            f"{where}: what {type(draft.module).__name__}'s MLP reads is neither a norm's output (it has "
            f"{', '.join(probe.norms) or 'none'}) nor the stream that the block carries on; not supported"
        )
    width = {kind: h.shape[-1] // (2 if draft.fused else 1) for kind, h in probe.h.items()}
    packed = probe.block_out
    returns = (type(packed), len(packed)) if isinstance(packed, (tuple, list)) else None
    block = replace(draft, widths=width, d_model=u.shape[-1], streams=one, returns=returns)
    if path is None:
        block = replace(block, norm=next(iter(draft.pre.values())))
    else:
        x, _ = probe.norms[path]
        after = u.reshape(down_out.shape) + down_out
        norm = resolve(draft.module, path)
        kind, offset, off = _norm_fit(norm, x, u)
        block = replace(
            block, norm=norm, norm_kind=kind, norm_offset=offset,
            parallel=block_in is not None and x.data_ptr() == block_in.data_ptr() and _same(x, block_in),
            post_norm=_same(out, after) or any(_same(before, after) for before, _ in probe.norms.values()),
        )  # fmt: skip
        if off > max(torch.finfo(u.dtype).eps ** 0.5, 1e-6):
            return replace(
                block, inexact=f"{where}: {type(unbridged(norm)).__name__} is no LayerNorm or RMSNorm of its "
                f"weights (off by {off:.2g} of the largest value): its codes are right, closed forms are not"
            )  # fmt: skip
    return replace(block, inexact=_linear_fault(block, probe, where))


def _norm_fit(norm: nn.Module, x: Tensor, u: Tensor) -> tuple[NormKind, int, float]:
    """Return the kind and the gain's offset that reproduce what a norm did best, and how far off they are."""
    x, u = x.detach().double().reshape(-1, u.shape[-1]), u.detach().double().reshape(-1, u.shape[-1])
    fits: list[tuple[float, NormKind, int]] = []
    kinds: tuple[NormKind, ...] = ("LayerNorm", "RMSNorm")
    for kind in kinds:
        centred = x - x.mean(-1, keepdim=True) if kind == "LayerNorm" else x
        for offset in (0, 1):
            *parts, eps = _norm_numbers(norm, kind, offset, u.shape[-1])
            gain, shift = (part.double().to(x.device) for part in parts)
            unit = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
            error = (unit * gain + shift - u).abs().max() / u.abs().max().clamp(min=1e-30)
            fits.append((float(error), kind, offset))
    best = min(fits, key=lambda fit: fit[0])
    return best[1], best[2], best[0]


def _norm_numbers(norm: nn.Module, kind: NormKind, offset: int, width: int) -> tuple[Tensor, Tensor, float]:
    """Return gain, shift and epsilon; a norm without a parameter has gain 1 and shift 0."""
    inner = unbridged(norm)
    ones = torch.ones(width)
    if kind == "none":
        return ones, 0 * ones, 0.0
    weight, bias = getattr(inner, "weight", None), getattr(inner, "bias", None)
    gain = ones if weight is None else weight.detach() + offset
    shift = torch.zeros_like(gain) if bias is None else bias.detach()
    eps = next((v for n in ("eps", "variance_epsilon") if (v := getattr(inner, n, None)) is not None), None)
    if eps is None:  # a tiny vector shows it: out = gain * d / sqrt(2 d^2 / D + eps) + shift
        tiny = torch.zeros_like(gain)
        tiny[0], tiny[1] = 1e-3, -1e-3
        with torch.no_grad():
            unit = (inner(tiny) - shift)[0] / gain[0]
        eps = float(f"{float(1e-6 / unit.double() ** 2 - 2e-6 / width):.4g}")
    return gain, shift, float(eps)


def _linear_fault(block: Block, probe: _Probe, where: str) -> str:
    """Say why `h = W u + b` does not hold on the probe with the weights that the modules show, or nothing."""
    assert probe.u is not None  # noqa: S101 - the probe reached this MLP
    u = probe.u.detach().reshape(-1, block.d_model)
    eps = torch.finfo(u.dtype).eps
    for kind, module in block.pre.items():
        h = probe.h[kind].detach().reshape(len(u), -1)[:, block.columns(kind)].float()
        cure = "its codes are right, closed forms need plain weights: model.merge_and_unload() or float32"
        name = f"{where}: {type(unbridged(module)).__name__} of {kind}"
        try:
            weight, bias = block.numbers(kind)
            mine = u.float() @ weight.float().T + (0.0 if bias is None else bias.float())
        except (AttributeError, RuntimeError, TypeError, NotImplementedError, IndexError):
            return f"{name} shows no weight of {block.widths[kind]} x {block.d_model} numbers; {cure}"
        off = (mine - h).abs()
        if bool((off > 4 * eps * h.abs() + max(1e-4, eps / 4) * h.abs().max()).any()):
            return f"{name} is not W u + b of its weight (off by {float(off.max()):.2g}); {cure}"
    return ""
