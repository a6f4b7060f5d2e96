"""From a name, a directory or a loaded model to a `Model`: one door for hub, local and packaged models."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from polytope_lm.errors import PolytopeError, public
from polytope_lm.models import bridge as bridges
from polytope_lm.models.families import find_blocks, survey
from polytope_lm.models.model import Model, compiled_parts, exclusive
from polytope_lm.on_device import checked_device
from polytope_lm.result import reproducible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from polytope_lm.models.sites import Site


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}

# Values of a configuration that name things, repeat what provenance says apart, or change no activation.
_UNTELLING = {
    "name_or_path", "commit_hash", "transformers_version", "architectures", "auto_map", "dtype", "torch_dtype",
    "experts_implementation", "attn_implementation", "attn_implementation_internal", "use_cache", "return_dict",
    "output_attentions", "output_hidden_states", "id2label", "label2id", "problem_type", "task_specific_params",
    "model_name", "tokenizer_name", "device", "n_devices", "seed", "default_prepend_bos",
}  # fmt: skip

# Values of a configuration that shape a block, by their names in most families.
_SIZES = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "n_inner",
    "ffn_dim", "hidden_act", "hidden_activation", "activation_function",
)  # fmt: skip


@reproducible("plm.load")
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
        name: `tiny-gpt2`, `tiny-relu`, `tiny-moe`, `smollm2-135m`, `gemma3-270m` or `minilm-l6`; a directory (written
            with a separator, such as `./gpt2`); or a name on the model hub, such as `gpt2`.
        device: a torch device.
        dtype: `float32` (the default: half precision flips 0.2 to 0.5 % of the bits), `float16`, `bfloat16`.
        revision: the hub's branch, tag or commit.
        trust_remote_code: run the model repository's own Python code. Off unless you trust it.

    Raises:
        PolytopeError: unknown name, unreachable hub, missing weights, or a model without supported sites.

    Examples:
        >>> import polytope_lm as plm
        >>> plm.load("tiny-gpt2")
        tiny-gpt2 (GPT2LMHeadModel, causal, 4 layers, context 256, float32, sdpa attention)

    """
    if dtype not in DTYPES:
        raise PolytopeError(f"unknown dtype {dtype!r}; choose among {', '.join(DTYPES)}")
    from polytope_lm.models.sources import locate, read_model  # noqa: PLC0415 - slow to import

    place = checked_device(device)
    collecting = gc.isenabled()
    gc.disable()  # as in `polytope_lm.__getattr__`, for transformers
    try:
        source = locate(name, revision)
        hf, tokenizer, commit = read_model(source, DTYPES[dtype], trust_remote_code=trust_remote_code)
    finally:
        if collecting:
            gc.enable()
    model = _assemble(hf.to(place), tokenizer, source.name, commit or source.revision)
    return replace(model, weights_origin=source.origin, formerly=source.formerly)


@dataclass(frozen=True)
class Outline:
    """What a model's small files say of its kind, before its weights are read.

    Attributes:
        name: the model's.
        architecture: its configuration's class.
        sizes: what of its configuration shapes its blocks.
        tokenizer: its tokenizer.

    """

    name: str
    architecture: str
    sizes: Mapping[str, Any]
    tokenizer: Any


def outline(model: Model | str | Path, revision: str | None = None) -> Outline:
    """Return what tells a model's kind: of a loaded one, or of a name, whose weights are not read.

    Raises:
        PolytopeError: as `load`, of what is wrong with a configuration or a tokenizer.

    """
    if isinstance(model, Model):
        name, tokenizer = model.name, model.tokenizer
        config: Any = getattr(model.hf, "config", None) or getattr(model.lens, "cfg", None)
    else:
        from polytope_lm.models.sources import locate, read_small  # noqa: PLC0415 - slow to import

        source = locate(model, revision)
        small = read_small(source, trust_remote_code=False)
        name, config, tokenizer = source.name, small.config, small.tokenizer
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    sizes = {key: value for key in _SIZES if (value := getattr(text, key, None)) is not None}
    return Outline(name, type(config).__name__, sizes, tokenizer)


@public
def wrap(model: Any, tokenizer: Any = None, *, name: str | None = None) -> Model:
    """Wrap a transformers model or a `TransformerBridge` that is loaded; it is not copied, nor changed.

    Args:
        model: a transformers model with its tokenizer, or a `TransformerBridge` with unprocessed weights.
        tokenizer: a fast tokenizer; a bridge brings its own, and whether BOS is put before texts
            (`bridge.cfg.default_prepend_bos`).
        name: a name for stores and reports; by default the configuration's.

    Raises:
        PolytopeError: a bridge with folded norms, a slow tokenizer, or a model without supported sites.

    Examples:
        >>> import polytope_lm as plm
        >>> model = plm.load("tiny-gpt2")
        >>> [site.width for site in plm.wrap(model.hf, model.tokenizer, name="mine").sites]
        [512, 512, 512, 512]

    """
    lens, bos = (model if bridges.is_bridge(model) else None), None
    if lens is not None:
        name = name or str(getattr(lens.cfg, "model_name", "bridge"))
        bridges.check_raw(lens, name)
        tokenizer = tokenizer or lens.tokenizer
        bos = bridges.default_bos(lens)
        model = lens.original_model
    if not isinstance(model, nn.Module):
        raise PolytopeError(f"can't wrap a {type(model).__name__}: give a transformers model or a TransformerBridge")
    config = getattr(model, "config", None)
    # The last part only: a directory's path says where a machine keeps it, not which model it is.
    name = name or Path(str(getattr(config, "_name_or_path", "") or type(model).__name__)).name
    return replace(_assemble(model, tokenizer, name, None, lens), bos=bos)


def _assemble(hf: nn.Module, tokenizer: Any, name: str, weights: str | None, lens: Any = None) -> Model:
    """Survey a loaded model and put a `Model` together."""
    if tokenizer is not None and not getattr(tokenizer, "is_fast", False):
        raise PolytopeError(
            f"{name}: {type(tokenizer).__name__} is a slow tokenizer; labels need character offsets: pass a fast one"
        )
    if (takes := getattr(hf, "main_input_name", "input_ids")) != "input_ids":
        raise PolytopeError(f"{name}: {type(hf).__name__} reads {takes}, not token ids: give a text model")
    parameters = dict(hf.named_parameters())
    if away := [key for key, weight in parameters.items() if weight.is_meta]:
        raise PolytopeError(
            f"{name}: {len(away)} of its {len(parameters)} weights are without values ({away[0]} is on the meta "
            f"device: never loaded, or offloaded): load it whole, without device_map or offloading"
        )
    config: Any = getattr(hf, "config", None)
    config = lens.cfg if lens is not None and config is None else config
    trunk = getattr(hf, getattr(hf, "base_model_prefix", "") or "", hf)
    whole = config
    if hasattr(config, "get_text_config") and (text := config.get_text_config()) is not config:
        model: Any = hf
        trunk, config = model.get_decoder(), text  # images have their own part
    act = getattr(getattr(lens, "cfg", None), "act_fn", None)
    if type(hf).__name__ == "OptimizedModule":
        _check_compiled(hf, [hf], name)
    try:
        with exclusive(hf, trunk, name):
            found = find_blocks(trunk, name)
            _check_compiled(hf, list(found), name)
            blocks, causal = survey(trunk, found, config, name, act)
            _check_compiled(hf, [m for block in blocks for m in (block.norm, *block.pre.values(), block.down)], name)
    except PolytopeError as error:
        raise (_unsound(hf, name) or error) from None
    settings, cut = _config_digest(whole), _tokenizer_digest(tokenizer)
    return Model(
        name=name, revision=f"{weights or _weights_digest(hf)} config-{settings} tokenizer-{cut}", hf=hf,
        tokenizer=tokenizer, trunk=trunk, blocks=tuple(blocks), causal=causal, lens=lens,
        context_length=_context_length(trunk, config, tokenizer),
    )  # fmt: skip


def _check_compiled(hf: nn.Module, read: Sequence[nn.Module], name: str) -> None:
    """Refuse a compiled module with one inside that is read: a compiled pass does not see hooks that come later."""
    for path, part in compiled_parts(hf).items():
        inside = {id(module) for module in part.modules()}
        if any(id(module) in inside for module in read):
            raise PolytopeError(
                f"{name}: {path or 'the whole model'} is compiled, and what is read inside it would not be seen: "
                f"compile parts that are not read, such as each block's attention (block.attn.compile())"
            )


def _unsound(hf: nn.Module, name: str) -> PolytopeError | None:
    """Return what to say of the first weights that are NaN or infinite: the rest comes of them."""
    for key, weight in hf.named_parameters():
        flawed = (~weight.detach().isfinite()).nonzero()
        if len(flawed):
            where = ", ".join(str(int(i)) for i in flawed[0])
            return PolytopeError(
                f"{name}: {len(flawed)} of {weight.numel()} weights of {key} are NaN or infinite, first "
                f"at [{where}]: give a sound copy"
            )
    return None


def _context_length(trunk: nn.Module, config: Any, tokenizer: Any) -> int:
    keys = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    lengths = [*(getattr(config, key, None) for key in keys), getattr(tokenizer, "model_max_length", None)]
    for path, module in trunk.named_modules():
        # RoBERTa and its kin count positions from one past the pad's, whose row is never read.
        first = getattr(module, "padding_idx", None) if path.endswith("position_embeddings") else None
        if first is not None and isinstance(module, nn.Embedding):
            lengths.append(module.num_embeddings - first - 1)
    return int(min((n for n in lengths if n), default=sys.maxsize))


def _weights_digest(hf: nn.Module) -> str:
    """Hash all weights, so that two models of one name can't share a store."""
    digest = hashlib.sha256()
    for key, value in sorted(hf.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return "weights-" + digest.hexdigest()[:16]


def _config_digest(config: Any) -> str:
    """Hash a configuration's values, but those that name things or change no activation.

    Of a transformers configuration those that are not the class's defaults, so that a later version's new ones don't
    count.
    """
    values = config.to_diff_dict() if hasattr(config, "to_diff_dict") else vars(config) if config else {}
    return hashlib.sha256(json.dumps(_telling(values), sort_keys=True, default=str).encode()).hexdigest()[:12]


def _telling(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _telling(v) for key, v in value.items() if str(key).lstrip("_") not in _UNTELLING}
    return [_telling(v) for v in value] if isinstance(value, (list, tuple)) else value


def _tokenizer_digest(tokenizer: Any) -> str:
    """Hash the serialised backend, without the truncation and padding that the last call left in it."""
    if tokenizer is None:
        return "none"
    backend = tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(backend[backend.index('"added_tokens"') :].encode()).hexdigest()[:12]


def select_sites(model: Model, layers: Sequence[int] | int | str, kind: str | None) -> tuple[Site, ...]:
    """Return the sites of the layers that a user named: indices, one index, or `all`.

    `kind` is a code kind, a declared hook point (`all` is its own layer), or None for the default. `all` routers are
    those of the layers that have one.
    """
    declared = tuple(site for site, _, _ in model.custom if site.hook == kind)
    if declared and layers == "all":
        return declared
    if isinstance(layers, str) and layers != "all":
        raise PolytopeError(f"layers {layers!r}: give 'all' or a list of indices")
    if layers == "all" and kind == "router":
        layers = [n for n, block in enumerate(model.blocks) if block.routing is not None]
        if not layers:
            raise PolytopeError(f"{model.name}: no layer has a router; kind 'router' is for mixtures of experts")
    layers = range(model.n_layers) if isinstance(layers, str) else layers
    wanted = [layers] if isinstance(layers, (int, np.integer)) else list(layers)
    if not wanted:
        raise PolytopeError("no layers: give at least one index")
    if len(set(wanted)) < len(wanted):
        raise PolytopeError(f"layers {wanted}: each layer once")
    return tuple(model.site(layer, kind) for layer in sorted(wanted))
