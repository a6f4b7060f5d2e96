"""What is proved of each family of models, by comparing with plain forward hooks; writes docs/families.md.

Every family is a tiny configuration with random weights. *Proved* means, in both layers:

- codes: `x`, `u` and `h` are, to the bit, what a plain hook on the transformers module sees, also in padded
  batches up to rounding; of a router (`h` its logits) every bit is its own call's top-k;
- closed forms: `u = Norm(x)` and `h = W u + b` with the numbers of `geometry`, and crossings between two
  tokens end at the second one's bits (a router has none: its regions do not end where a logit is 0);
- downstream: the activation of one token replaced by another's gives the other's `h` in every later layer,
  with a shared prefix too;
- next token: so it does for the logits; the chosen logits and the logit lens of the last layer are the
  model's own.

`python -m benchmarks.families` writes the table; `--check` says whether it is up to date.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers as tf

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models.hooks import read
from polytope_lm.models.interventions import run_patched
from polytope_lm.models.logits import check_logits, logits_at, next_token_logits
from polytope_lm.models.prefix import share_prefix
from polytope_lm.paths.solve.line import in_layer_crossings

if TYPE_CHECKING:
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Linearity, NormKind

ROOT = Path(__file__).parents[1]
TABLE, DATA = ROOT / "docs" / "families.md", ROOT / "polytope_lm" / "data" / "families.json"
COLUMNS = ("codes", "closed forms", "downstream", "next token")
VOCABULARY = 60

_NAMES = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 44, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": 0,
}  # fmt: skip
_GPT = {
    "vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 0,
    "eos_token_id": 0,
}  # fmt: skip
_OPT = {**_NAMES, "ffn_dim": 44, "word_embed_proj_dim": 24}
_GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
_GEMMA3N = {
    "num_key_value_heads": 1, "head_dim": 8, "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8, "laurel_rank": 4, "num_kv_shared_layers": 0,
    "layer_types": ["sliding_attention", "full_attention"], "activation_sparsity_pattern": [0.0, 0.0],
    "altup_num_inputs": 2, "sliding_window": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A tiny model of a family, and what its source in transformers says of it, written down by hand.

    Attributes:
        model: the class in transformers, without the ending of its configuration.
        head: the ending of the model's class.
        options: of the configuration.
        pre: path of the (gate's) pre-activations' module, or of the router, `{}` for the layer.
        norm: path of the module that reads `x`.
        parallel: the norm reads the block's input.
        post_norm: the norm's output is the stream.
        causal: a token sees only what comes before it.
        linearity: of the MLP.
        activation: its name.
        biased: the pre-activations have a bias.
        kind: of the norm.
        up: path of `up`'s module; None for plain MLPs and routers.
        router: the first thing that the router returns are its logits, the last the indices of the chosen.

    """

    model: str
    head: str
    options: dict[str, Any]
    pre: str
    norm: str
    linearity: Linearity = "gated"
    activation: str = "silu"
    kind: NormKind = "RMSNorm"
    biased: bool = False
    parallel: bool = False
    post_norm: bool = False
    causal: bool = True
    up: str | None = None
    router: bool = False

    def make(self) -> torch.nn.Module:
        """Build the model; every parameter is random, so that no zero or one hides a mistake."""
        config = getattr(tf, f"{self.model}Config", None) or getattr(tf, f"{self.model}TextConfig")
        if self.model in {"Gemma3", "Gemma3n"}:
            config = getattr(tf, f"{self.model}TextConfig")
        model: torch.nn.Module = getattr(tf, self.model + self.head)(config(**self.options))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            corrections = (b for name, b in model.named_buffers() if name.endswith("correction_bias"))
            for parameter in (*model.parameters(), *corrections):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        return model.eval()


def _plain(model: str, options: dict[str, Any], pre: str, norm: str, activation: str, **more: Any) -> Family:
    linearity: Linearity = "smooth" if activation != "relu" else "piecewise affine"
    more = {"linearity": linearity, "biased": True, "kind": "LayerNorm", **more}
    return Family(model, more.pop("head", "ForCausalLM"), options, pre, norm, activation=activation, **more)


def _gated(model: str, norm: str = "post_attention_layernorm", **more: Any) -> Family:
    options = _NAMES | more.pop("options", {})
    pre = "model.layers.{}.mlp." + more.pop("pre", "gate_proj")
    up = pre.replace("gate_proj", "up_proj")
    return Family(model, "ForCausalLM", options, pre, f"model.layers.{{}}.{norm}", up=up, **more)


def _routed(model: str, options: dict[str, Any], pre: str = "gate", **more: Any) -> Family:
    options = _NAMES | {"num_key_value_heads": 2} | options
    k, experts = options["num_experts_per_tok"], options.get("num_experts") or options["num_local_experts"]
    more = {"linearity": "routed", "activation": f"top {k} of {experts}", "router": True, **more}
    pre, norm = f"model.layers.{{}}.mlp.{pre}", "model.layers.{}.post_attention_layernorm"
    return Family(model, "ForCausalLM", options, pre, norm, **more)


_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_QWEN = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
_DEEPSEEK = {
    "num_experts_per_tok": 3, "num_local_experts": 8, "n_group": 4, "topk_group": 2, "moe_intermediate_size": 12,
    "first_k_dense_replace": 0, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip
_GPT2 = ("transformer.h.{}.mlp.c_fc", "transformer.h.{}.ln_2", "gelu_new")
_NEOX = ("gpt_neox.layers.{}.mlp.dense_h_to_4h", "gpt_neox.layers.{}.post_attention_layernorm", "gelu")
_BLOOM = (
    "transformer.h.{}.mlp.dense_h_to_4h", "transformer.h.{}.post_attention_layernorm", "gelu_pytorch_tanh",
)  # fmt: skip
_BERT = ("encoder.layer.{}.intermediate.dense", "encoder.layer.{}.attention.output.LayerNorm", "gelu")
_ENCODER: dict[str, Any] = {"post_norm": True, "causal": False, "head": "Model"}

FAMILIES = {
    "GPT-1": _plain(
        "OpenAIGPT", _GPT | {"afn": "relu"}, "transformer.h.{}.mlp.c_fc", "transformer.h.{}.ln_1", "relu",
        head="LMHeadModel", post_norm=True,
    ),
    "GPT-2": _plain("GPT2", _GPT, *_GPT2, head="LMHeadModel"),
    "GPT-2 with ReLU": _plain(
        "GPT2", _GPT | {"activation_function": "relu"}, *_GPT2[:2], "relu", head="LMHeadModel"
    ),
    "GPTBigCode": _plain(
        "GPTBigCode", _GPT | {"activation_function": "gelu_pytorch_tanh"}, *_GPT2[:2], "gelu_pytorch_tanh"
    ),
    "GPT-J": _plain(
        "GPTJ", _GPT | {"rotary_dim": 4}, "transformer.h.{}.mlp.fc_in", "transformer.h.{}.ln_1", "gelu_new",
        parallel=True,
    ),
    "CodeGen": _plain(
        "CodeGen", _GPT | {"rotary_dim": 4, "n_head": 4}, "transformer.h.{}.mlp.fc_in",
        "transformer.h.{}.ln_1", "gelu_new", parallel=True,
    ),
    "GPT-NeoX": _plain("GPTNeoX", _NAMES, *_NEOX, parallel=True),
    "GPT-NeoX, sequential": _plain("GPTNeoX", _NAMES | {"use_parallel_residual": False}, *_NEOX),
    "OPT": _plain(
        "OPT", _OPT, "model.decoder.layers.{}.fc1", "model.decoder.layers.{}.final_layer_norm", "relu"
    ),
    "OPT-350m": _plain(
        "OPT", _OPT | {"do_layer_norm_before": False}, "model.decoder.layers.{}.fc1",
        "model.decoder.layers.{}.self_attn_layer_norm", "relu", post_norm=True,
    ),
    "Galactica": _plain(
        "OPT", _OPT | {"enable_bias": False, "layer_norm_elementwise_affine": False,
                       "activation_function": "gelu"},
        "model.decoder.layers.{}.fc1", "model.decoder.layers.{}.final_layer_norm", "gelu", biased=False,
    ),
    "BLOOM": _plain("Bloom", _NAMES | {"n_layer": 2, "n_head": 2}, *_BLOOM),
    "BLOOM, residual after the norm": _plain(
        "Bloom", _NAMES | {"n_layer": 2, "n_head": 2, "apply_residual_connection_post_layernorm": True},
        *_BLOOM, post_norm=True,
    ),
    "Falcon-7b": _plain(
        "Falcon", _NAMES, "transformer.h.{}.mlp.dense_h_to_4h", "transformer.h.{}.input_layernorm", "gelu",
        parallel=True, biased=False,
    ),
    "Falcon-40b": _plain(
        "Falcon", _NAMES | {"new_decoder_architecture": True, "num_kv_heads": 1},
        "transformer.h.{}.mlp.dense_h_to_4h", "transformer.h.{}.ln_mlp", "gelu", parallel=True, biased=False,
    ),
    "MPT": _plain(
        "Mpt", {"vocab_size": VOCABULARY, "d_model": 24, "n_heads": 2, "n_layers": 2, "max_seq_len": 64},
        "transformer.blocks.{}.ffn.up_proj", "transformer.blocks.{}.norm_2", "gelu", biased=False,
    ),
    "Phi": _plain(
        "Phi", _NAMES, "model.layers.{}.mlp.fc1", "model.layers.{}.input_layernorm", "gelu_new", parallel=True
    ),
    "Nemotron": _plain(
        "Nemotron", _NAMES | {"num_key_value_heads": 2}, "model.layers.{}.mlp.up_proj",
        "model.layers.{}.post_attention_layernorm", "relu2", biased=False, linearity="piecewise quadratic",
    ),
    "Arcee": _plain(
        "Arcee", _NAMES, "model.layers.{}.mlp.up_proj", "model.layers.{}.post_attention_layernorm",
        "relu2", biased=False, linearity="piecewise quadratic", kind="RMSNorm",
    ),
    "Llama": _gated("Llama"),
    "Llama with biases": _gated("Llama", options={"mlp_bias": True}, biased=True),
    "Mistral": _gated("Mistral", options={"num_key_value_heads": 1}),
    "Qwen2": _gated("Qwen2", options={"num_key_value_heads": 1}),
    "Qwen3": _gated("Qwen3", options=_GROUPED),
    "Gemma": _gated("Gemma", options=_GROUPED, activation="gelu_pytorch_tanh"),
    "Gemma 2": _gated(
        "Gemma2", "pre_feedforward_layernorm", options=_GROUPED | {"sliding_window": 4},
        activation="gelu_pytorch_tanh",
    ),
    "Gemma 3": _gated(
        "Gemma3", "pre_feedforward_layernorm", options=_GROUPED | {"sliding_window": 4},
        activation="gelu_pytorch_tanh",
    ),
    "Gemma 3n": _gated(
        "Gemma3n", "pre_feedforward_layernorm", options=_GEMMA3N, activation="gelu_pytorch_tanh"
    ),
    "Phi-3": _gated("Phi3", pre="gate_up_proj"),
    "GLM-4": _gated("Glm4", pre="gate_up_proj", options=_GROUPED),
    "OLMo-1": _gated("Olmo", kind="LayerNorm"),
    "OLMo-2": _gated("Olmo2", "mlp.gate_proj", kind="none"),
    "StableLM": _gated(
        "StableLm", kind="LayerNorm", options={"num_key_value_heads": 2, "partial_rotary_factor": 0.5}
    ),
    "Cohere": _gated("Cohere", "input_layernorm", kind="LayerNorm", parallel=True),
    "Mixtral": _routed("Mixtral", {"num_experts_per_tok": 2, "num_local_experts": 5}),
    "Qwen2-MoE": _routed("Qwen2Moe", _QWEN | {"shared_expert_intermediate_size": 12}),
    "Qwen3-MoE": _routed("Qwen3Moe", _QWEN | _GROUPED),
    "OLMoE": _routed("Olmoe", {"num_experts": 7, "num_experts_per_tok": 3}),
    "DeepSeek-V3": _routed("DeepseekV3", _DEEPSEEK, biased=True),
    "gpt-oss": _routed(
        "GptOss", {"num_experts_per_tok": 2, "num_local_experts": 6, "rope_parameters": _ROPE} | _GROUPED,
        pre="router", biased=True,
    ),
    "BERT": _plain("Bert", _NAMES, *_BERT, **_ENCODER),
    "RoBERTa": _plain("Roberta", _NAMES | {"max_position_embeddings": 66}, *_BERT, **_ENCODER),
    "DistilBERT": _plain(
        "DistilBert", {"vocab_size": VOCABULARY, "dim": 24, "hidden_dim": 44, "n_layers": 2, "n_heads": 2,
                       "max_position_embeddings": 64},
        "transformer.layer.{}.ffn.lin1", "transformer.layer.{}.sa_layer_norm", "gelu", **_ENCODER,
    ),
    "ModernBERT": Family(
        "ModernBert", "Model", _NAMES | {"cls_token_id": 0, "sep_token_id": 0}, "layers.{}.mlp.Wi",
        "layers.{}.mlp_norm", activation="gelu", kind="LayerNorm", causal=False, up="layers.{}.mlp.Wi",
    ),
}  # fmt: skip

IDS = torch.randint(1, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(3))


def plain(hf: torch.nn.Module, path: str, ids: torch.Tensor) -> list[np.ndarray]:
    """Return input and output (or outputs) of one module, by a forward hook and a whole forward pass."""
    seen: list[tuple[torch.Tensor, ...]] = []

    def keep(_module: torch.nn.Module, args: Any, out: Any) -> None:
        seen.append((args[0].clone(), *(v.clone() for v in (out if isinstance(out, tuple) else (out,)))))

    handle = hf.get_submodule(path).register_forward_hook(keep)
    with torch.no_grad():
        hf(ids)
    handle.remove()
    return [v.reshape(*ids.shape, -1).numpy() for v in seen[0]]


def hooked(family: Family, hf: torch.nn.Module, layer: int, ids: torch.Tensor) -> dict[str, np.ndarray]:
    """Return `x`, `u`, `h` and, of gated MLPs, `up`, of routers the `chosen` of a layer by plain hooks."""
    path = family.pre.format(layer)
    u, h, *more = plain(hf, path, ids)
    found = {"x": plain(hf, family.norm.format(layer), ids)[0], "u": u, "h": h}
    if family.router:
        found["chosen"] = np.zeros_like(h)
        np.put_along_axis(found["chosen"], more[-1], 1.0, axis=-1)
    if family.up is not None:
        found["up"] = plain(hf, family.up.format(layer), ids)[1]
        if family.up == family.pre:
            found["h"], found["up"] = np.split(h, 2, axis=-1)
    return found


def captured(model: Model, layer: int, ids: torch.Tensor, *points: Any, mask: Any = None) -> dict[str, Any]:
    """Return what the package reads at points of a layer."""
    got: dict[str, Any] = {}

    def keep(point: str, value: torch.Tensor) -> None:
        got[point] = value.clone().numpy()

    read(model, ids, mask, {(layer, point): partial(keep, point) for point in points})
    return got


def prove_codes(family: Family, hf: torch.nn.Module, model: Model) -> None:
    """Compare `x`, `u`, `h` and `up` with plain hooks, alone and in a padded batch."""
    for layer in range(model.n_layers):
        expected = hooked(family, hf, layer, IDS)
        for point, value in captured(model, layer, IDS, *expected).items():
            np.testing.assert_array_equal(value, expected[point], err_msg=f"{point} of layer {layer}")
        ids, mask = IDS.clone(), torch.ones_like(IDS)
        ids[0, 5:], mask[0, 5:] = 10**6, 0
        together = captured(model, layer, ids, "h", mask=mask)["h"]
        alone = hooked(family, hf, layer, IDS[:1, :5])["h"]
        np.testing.assert_allclose(together[:1, :5], alone, atol=1e-4, rtol=1e-4)


def prove_closed_forms(family: Family, hf: torch.nn.Module, model: Model) -> None:
    """Compute `u` and `h` from `x` by the formula, and the crossings between two tokens."""
    for layer in range(model.n_layers):
        seen = {k: v.astype(float) for k, v in hooked(family, hf, layer, IDS).items()}
        g = model.geometry(model.site(layer))
        u = seen["x"]
        if g.norm != "none":
            cx = u - u.mean(-1, keepdims=True) if g.norm == "LayerNorm" else u
            u = cx / np.sqrt((cx**2).mean(-1, keepdims=True) + g.eps) * g.gain + g.shift
        np.testing.assert_allclose(u, seen["u"], atol=5e-6, rtol=1e-5)
        np.testing.assert_allclose(u @ g.weight.T.astype(float) + g.bias, seen["h"], atol=2e-5, rtol=1e-5)
        if family.router:
            continue
        a, b = seen["x"][:1, -1].astype(np.float32), seen["x"][:1, -2].astype(np.float32)
        found = in_layer_crossings(g, a, b, at="resid_mid")
        flips = np.zeros(len(g.weight), int)
        np.add.at(flips, found.neuron, 1)
        ends = (seen["h"][0, -1] > 0) != (seen["h"][0, -2] > 0)
        np.testing.assert_array_equal(flips % 2 == 1, ends)


def _replaced(family: Family, hf: torch.nn.Module, model: Model, *, logits: bool) -> tuple[Any, Any]:
    """Give A's last token B's `x` in layer 0, whole and with a shared prefix; return both and B's own ids."""
    a, b = IDS[0].clone(), IDS[0].clone()
    b[-1] = (a[-1] + 7) % (VOCABULARY - 1) + 1
    x = hooked(family, hf, 0, b[None])["x"][0, -1:]
    settings: Any = {"layer": 0, "position": len(a) - 1, "taps": [(1, "h")], "logits": logits}
    shared = share_prefix(model, a, layer=0, position=len(a) - 1)
    prefixes = [None] if shared is None else [None, shared]
    return [run_patched(model, a.numpy(), x, **settings, prefix=prefix) for prefix in prefixes], b[None]


def prove_downstream(family: Family, hf: torch.nn.Module, model: Model) -> None:
    """Compare the next layer's `h` with the other sequence's own."""
    runs, b = _replaced(family, hf, model, logits=False)
    own = hooked(family, hf, 1, b)["h"][0, -1:]
    assert np.abs(hooked(family, hf, 1, IDS[:1])["h"][0, -1:] - own).max() > 1e-2
    for run in runs:
        np.testing.assert_allclose(run.activations[1, "h"], own, atol=2e-4, rtol=1e-4)


def prove_next_token(family: Family, hf: torch.nn.Module, model: Model) -> None:
    """Compare logits at chosen positions, after a replacement, and through the lens with the model's own."""
    check_logits(model)
    with torch.no_grad():
        whole = hf(IDS).logits.numpy()
    rows, columns = torch.tensor([1, 0]), torch.tensor([3, 8])
    close: Any = {"atol": 2e-4, "rtol": 1e-4}
    np.testing.assert_allclose(logits_at(model, IDS, rows, columns).numpy(), whole[rows, columns], **close)
    stream = captured(model, model.n_layers - 1, IDS, "resid_post")["resid_post"]
    np.testing.assert_allclose(next_token_logits(model, stream[0]), whole[0], **close)
    runs, b = _replaced(family, hf, model, logits=True)
    with torch.no_grad():
        own = hf(b).logits[:, -1].numpy()
    for run in runs:
        np.testing.assert_allclose(run.logits, own, **close)


PROOFS = dict(zip(COLUMNS, (prove_codes, prove_closed_forms, prove_downstream, prove_next_token), strict=True))


def proved(name: str) -> dict[str, str]:
    """Return a family's row: its MLP, and for each column `proved`, or why it is refused.

    Raises:
        AssertionError: something is neither right nor refused.

    """
    family = FAMILIES[name]
    hf = family.make()
    try:
        model = plm.wrap(hf, name=name)
    except PolytopeError as error:
        return {"family": name, "MLP": "", **dict.fromkeys(COLUMNS, _reason(error, name))}
    row = {"family": name, "MLP": str(model.site(1).premises)}
    for column, prove in PROOFS.items():
        try:
            prove(family, hf, model)
            row[column] = "proved"
        except PolytopeError as error:
            row[column] = _reason(error, name)
    return row


def _reason(error: PolytopeError, name: str) -> str:
    return "refused: " + str(error).removeprefix(name).lstrip(":, ")


def generate() -> tuple[str, str]:
    """Return the page and the data, as they should stand in the files."""
    rows = [proved(name) for name in FAMILIES]
    reasons = dict.fromkeys(row[c] for row in rows for c in COLUMNS if row[c] != "proved")
    number = {reason: f"refused ({n})" for n, reason in enumerate(reasons, 1)}
    said = (
        "Made by `python -m benchmarks.families` from tiny random models; not typed. *Proved*: equal to what "
        "plain forward hooks on the transformers model give (the script's first lines say how). Any other "
        "model is probed when it is loaded, and refused in one line where this does not hold."
    )
    lines = [
        "# Families of models",
        "",
        said,
        "",
        "| " + " | ".join(rows[0]) + " |",
        "|" + "---|" * len(rows[0]),
        *("| " + " | ".join(number.get(value, value) for value in row.values()) + " |" for row in rows),
        "",
        *(f"{n}. {reason.removeprefix('refused: ')}" for n, reason in enumerate(reasons, 1)),
        "",
    ]
    return "\n".join(lines), json.dumps(rows, indent=1) + "\n"


def main() -> None:
    """Write the files, or with `--check` fail if they differ."""
    for path, text in zip((TABLE, DATA), generate(), strict=True):
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name} is not what `python -m benchmarks.families` writes: run it")


if __name__ == "__main__":
    main()
