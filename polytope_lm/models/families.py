"""Finding a block's norm, pre-activations and down projection in a loaded model.

Names only propose; a probe decides. A short forward pass shows which norm's output the MLP reads, whether
that norm reads the block's own input (parallel blocks) and whether its output is the stream that is carried
on (post-norm), so that nothing is concluded from a family's name.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import PIECEWISE_AFFINE, Linearity, NormKind, Premises, Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BLOCK_LISTS = ("h", "layers", "blocks", "decoder.layers", "encoder.layer", "encoder.layers")
MLP_PATHS = ("mlp", "feed_forward", "")
PLAIN_PRE = ("c_fc", "dense_h_to_4h", "fc1", "fc_in", "intermediate.dense")
DOWN = ("c_proj", "dense_4h_to_h", "fc2", "fc_out", "output.dense", "down_proj")
NORMS = (
    "pre_feedforward_layernorm", "ln_2", "ln2", "post_attention_layernorm", "final_layer_norm",
    "self_attn_layer_norm",
    "attention.output.LayerNorm", "input_layernorm", "ln_1", "ln1",
)  # fmt: skip
ACTIVATION_CLASSES = {
    "NewGELUActivation": "gelu_new", "GELUActivation": "gelu", "GELU": "gelu",
    "GELUTanh": "gelu_pytorch_tanh",
    "PytorchGELUTanh": "gelu_pytorch_tanh", "FastGELUActivation": "gelu_fast",
    "QuickGELUActivation": "quick_gelu",
    "SiLUActivation": "silu", "SiLU": "silu", "ReLU": "relu",
}  # fmt: skip
EXPERTS = ("experts", "router", "block_sparse_moe", "gate")


@dataclass(frozen=True)
class Block:
    """One transformer block's parts, as modules of the loaded model.

    Attributes:
        module: the block itself.
        norm: the norm whose output the MLP reads.
        pre: the linear maps whose output is binarised, by kind (`pre`, or `gate` and `up`).
        down: the down projection; its input is `post`.
        activation: name of the activation function.
        parallel: the norm reads the block's input.
        post_norm: the norm's output is carried on as the residual stream.

    """

    module: nn.Module
    norm: nn.Module
    pre: Mapping[str, nn.Module]
    down: nn.Module
    activation: str
    parallel: bool = False
    post_norm: bool = False


@dataclass
class _Probe:
    """What one forward pass of two short sequences showed of a block."""

    block_in: Tensor | None = None
    block_out: Tensor | None = None
    u: Tensor | None = None
    widths: dict[str, int] = field(default_factory=dict)
    down_out: Tensor | None = None
    norms: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def saw_block(self, _module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self.block_in = _first_of(args) if args else kwargs["hidden_states"]
        self.block_out = _first_of(out)

    def saw_pre(self, kind: str, _module: nn.Module, args: Any, out: Tensor) -> None:
        self.u, self.widths[kind] = args[0], out.shape[-1]

    def saw_norm(self, path: str, _module: nn.Module, args: Any, out: Tensor) -> None:
        self.norms[path] = (args[0], out)

    def saw_down(self, _module: nn.Module, _args: Any, out: Tensor) -> None:
        self.down_out = out


def _first_of(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


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
    """Return the list of transformer blocks of a trunk.

    Raises:
        PolytopeError: none of the known places holds one.

    """
    for path in BLOCK_LISTS:
        blocks = resolve(trunk, path)
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            return blocks
    raise PolytopeError(
        f"{name}: {type(trunk).__name__} is of an unknown family: no list of blocks among "
        f"{', '.join(BLOCK_LISTS)}; "
        f"known families are GPT-2, GPT-NeoX, OPT, Llama (Mistral, Qwen, SmolLM2), Gemma 1 to 3 and BERT"
    )


def survey(
    trunk: nn.Module, blocks: nn.ModuleList, config: Any, name: str, act: str | None = None
) -> tuple[list[Block], bool]:
    """Describe every block after one probing forward pass.

    Args:
        trunk: the model without its LM head.
        blocks: its blocks.
        config: its configuration (`vocab_size`, the activation's name).
        name: the model's name, for errors.
        act: the activation's name where the modules do not hold it.

    Returns:
        The blocks, and whether the model is causal: what comes later leaves what came before unchanged.

    Raises:
        PolytopeError: a mixture of experts, an MLP of unknown build, or no norm before the MLP.

    """
    drafts = [_draft(block, layer, config, name, act) for layer, block in enumerate(blocks)]
    probes = _probe(trunk, drafts, int(getattr(config, "vocab_size", 0) or 50))
    causal = _same(probes[-1].block_out[0, :3], probes[-1].block_out[1, :3])  # type: ignore[index]
    return [
        _settle(d, p, layer, name) for layer, (d, p) in enumerate(zip(drafts, probes, strict=True))
    ], causal


def make_site(block: Block, layer: int, kind: str) -> Site:
    """Describe one site of a block as plain data.

    Args:
        block: the block.
        layer: its index.
        kind: `pre`, `gate`, `up` or `gate+up`.

    """
    parts = kind.split("+")
    weights = [weight_and_bias(block.pre[p]) for p in parts]
    gated = "gate" in block.pre
    linearity: Linearity = (
        "gated" if gated else "piecewise affine" if block.activation in PIECEWISE_AFFINE else "smooth"
    )
    biased = any(b is not None for _, b in weights)
    premises = Premises(linearity, block.activation, biased, norm_kind(block.norm))
    hook = f"blocks.{layer}.mlp.hook_pre" + ("_linear" if kind == "up" else "")
    width = sum(w.shape[0] for w, _ in weights)
    return Site(layer, kind, hook, width, weights[0][0].shape[1], premises, block.parallel, block.post_norm)  # type: ignore[arg-type]


def weight_and_bias(linear: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return W as `[N, D]` and b as `[N]` or None, also for GPT-2's `Conv1D`, which stores `W` transposed."""
    inner = unbridged(linear)
    weight: Tensor = inner.weight.detach()
    bias = getattr(inner, "bias", None)
    if type(inner).__name__ == "Conv1D":
        weight = weight.T
    return weight, None if bias is None else bias.detach()


def norm_kind(norm: nn.Module) -> NormKind:
    """Tell a LayerNorm from an RMSNorm by the module's class."""
    return "RMSNorm" if "RMS" in type(unbridged(norm)).__name__ else "LayerNorm"


def _draft(block: nn.Module, layer: int, config: Any, name: str, act: str | None) -> Block:
    """Propose a block's parts by name; the norm stays open until the probe."""
    for path in MLP_PATHS:
        mlp = resolve(block, path)
        if mlp is None:
            continue
        down = _first(mlp, DOWN)
        if (gate := resolve(mlp, "gate_proj")) is not None and (up := resolve(mlp, "up_proj")) is not None:
            return Block(
                block, nn.Identity(), {"gate": gate, "up": up}, down, act or _activation(mlp, config)
            )
        pre = _first(mlp, PLAIN_PRE)
        if pre is not None and down is not None:
            return Block(block, nn.Identity(), {"pre": pre}, down, act or _activation(mlp, config))
        if any(resolve(mlp, e) is not None for e in EXPERTS):
            break
    mlp = resolve(block, "mlp") or block
    where = f"{name}, layer {layer}: "
    if any(resolve(m, e) is not None for m in (mlp, block) for e in EXPERTS):
        raise PolytopeError(
            f"{where}its MLP ({type(mlp).__name__}) is a mixture of experts, which has no single code of "
            f"d_mlp bits; "
            f"not supported, choose a dense model"
        )
    raise PolytopeError(
        f"{where}unknown MLP {type(mlp).__name__} with {[n for n, _ in mlp.named_children()]}; expected one "
        f"of "
        f"{', '.join(PLAIN_PRE)} or gate_proj and up_proj"
    )


def _first(module: nn.Module, paths: tuple[str, ...]) -> Any:
    return next((m for p in paths if (m := resolve(module, p)) is not None), None)


def _activation(mlp: nn.Module, config: Any) -> str:
    """Read the activation from the MLP's own module, else from the configuration."""
    for name in ("act", "act_fn", "activation_fn", "activation", "intermediate.intermediate_act_fn"):
        found = resolve(mlp, name)
        if found is not None and type(unbridged(found)).__name__ in ACTIVATION_CLASSES:
            return ACTIVATION_CLASSES[type(unbridged(found)).__name__]
    for name in ("hidden_activation", "activation_function", "hidden_act"):
        if value := getattr(config, name, None):
            return str(value)
    return "unknown"


@contextmanager
def _hooked(drafts: list[Block], probes: list[_Probe]) -> Iterator[None]:
    """Let a forward pass fill the probes."""
    with ExitStack() as stack:
        for draft, probe in zip(drafts, probes, strict=True):
            found = ((path, resolve(draft.module, path)) for path in (*NORMS, "output.LayerNorm"))
            norms = {path: module for path, module in found if module is not None}
            handles = [
                draft.module.register_forward_hook(probe.saw_block, with_kwargs=True),
                draft.down.register_forward_hook(probe.saw_down),
                *(m.register_forward_hook(partial(probe.saw_pre, kind)) for kind, m in draft.pre.items()),
                *(m.register_forward_hook(partial(probe.saw_norm, path)) for path, m in norms.items()),
            ]
            for handle in handles:
                stack.callback(handle.remove)
        yield


@torch.no_grad()
def _probe(trunk: nn.Module, drafts: list[Block], vocab: int) -> list[_Probe]:
    """Run two sequences of four tokens that differ in the last one."""
    probes = [_Probe() for _ in drafts]
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]]) % vocab
    with _hooked(drafts, probes):
        trunk(ids.to(next(trunk.parameters()).device))
    return probes


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors hold the same bits, whatever their leading shape (OPT flattens before its MLP).

    One tensor read twice is the same to the bit, so a small attention output can't pass for none.
    """
    return (
        a is not None
        and b is not None
        and a.numel() == b.numel()
        and torch.equal(a.reshape(-1), b.reshape(-1))
    )


def _settle(draft: Block, probe: _Probe, layer: int, name: str) -> Block:
    """Choose the norm that the probe showed before the MLP, and check the widths."""
    path = next((p for p, (_, out) in probe.norms.items() if _same(out, probe.u)), None)
    if path is None:
        raise PolytopeError(
            f"{name}, layer {layer}: no norm before the MLP: none of {sorted(probe.norms)} puts out what "
            f"{type(draft.module).__name__}'s MLP reads; blocks of that build (OLMo-2) are not supported"
        )
    for kind, module in draft.pre.items():
        expected = weight_and_bias(module)[0].shape[0]
        if probe.widths[kind] != expected:
            raise PolytopeError(
                f"{name}, layer {layer}: captured {probe.widths[kind]} values at {kind}, expected "
                f"{expected}; "
                f"this MLP ({type(draft.module).__name__}) is not a plain or gated one"
            )
    x, _ = probe.norms[path]
    carried = probe.u.reshape(probe.down_out.shape) + probe.down_out  # type: ignore[union-attr,operator]
    post_norm = any(_same(before, carried) for before, _ in probe.norms.values())
    return Block(
        draft.module, resolve(draft.module, path), draft.pre, draft.down, draft.activation,
        parallel=_same(x, probe.block_in), post_norm=post_norm,
    )  # fmt: skip
