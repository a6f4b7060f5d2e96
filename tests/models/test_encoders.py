"""Encoders of sparse autoencoders and transcoders as sites."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.models.sites import Premises

HOOK = "blocks.1.hook_resid_post"
D, N = 24, 40


def arrays(seed: int = 0) -> dict[str, torch.Tensor]:
    """A sparse autoencoder's arrays, as SAELens stores them."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D, N), "b_enc": (N,), "b_dec": (D,), "W_dec": (N, D)}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def directory(path, config, tensors):
    path.mkdir()
    (path / "cfg.json").write_text(json.dumps(config))
    save_file(tensors, path / "sae_weights.safetensors")
    return path


def config(architecture="standard", **more):
    return {
        "architecture": architecture, "d_in": D, "d_sae": N, "dtype": "float32", "apply_b_dec_to_input": True,
        "normalize_activations": "none", "metadata": {"hook_name": HOOK, "model_name": "gpt2"}, **more,
    }  # fmt: skip


def activations(model, hook=HOOK) -> torch.Tensor:
    """What stands at a hook point, by a plain hook of the bridge."""
    rows = []
    with torch.no_grad():
        for text in SENTENCES:
            ids = torch.tensor([model.tokenizer(text)["input_ids"]])
            keep = [(hook, lambda v, hook: rows.append(v[0].flatten(1).clone()))]  # noqa: ARG005
            model.bridge.run_with_hooks(ids, return_type=None, fwd_hooks=keep)
    return torch.cat(rows)


def features(x, tensors, *, threshold=None, input_bias=True):
    """The features by SAELens's own order of operations; and where they are within rounding of switching."""
    x = x - tensors["b_dec"] if input_bias else x
    pre = x @ tensors["W_enc"] + tensors["b_enc"]
    limit = torch.zeros(N) if threshold is None else threshold
    values = torch.relu(pre) * (pre > limit)
    return values, (pre - limit.clamp(min=0)).abs() > 1e-4


def same_codes(codes, values, sure):
    assert 0.1 < (values > 0).float().mean() < 0.9
    np.testing.assert_array_equal(codes.bits()[sure.numpy()], (values > 0).numpy()[sure.numpy()])


def test_a_sparse_autoencoders_features_are_the_code(model, tmp_path):
    tensors = arrays()
    mine = model.with_encoder(directory(tmp_path / "sae", config(), tensors))
    codes = plm.encode(mine, SENTENCES, kind=HOOK)
    values, sure = features(activations(model), tensors)
    same_codes(codes, values, sure)
    assert codes.site().premises == Premises("piecewise affine", "relu", biased=True, norm="none")
    assert codes.site().premises.met
    on = values > 0
    np.testing.assert_allclose(codes.activations("h")[on.numpy()], values[on].numpy(), atol=1e-3)
    store = plm.capture(mine, SENTENCES, to=tmp_path / "store", kind=HOOK)
    np.testing.assert_array_equal(store.bits(), codes.bits())


def test_thresholds_are_jumprelus(model, tmp_path):
    tensors = arrays() | {"threshold": torch.linspace(-1, 4, N)}
    mine = model.with_encoder(directory(tmp_path / "sae", config("jumprelu"), tensors))
    codes = plm.encode(mine, SENTENCES, kind=HOOK)
    same_codes(codes, *features(activations(model), tensors, threshold=tensors["threshold"]))
    assert codes.site().premises.activation == "jumprelu"


def test_a_transcoders_output_bias_is_left_alone(model, tmp_path):
    hook = "blocks.1.ln2.hook_normalized"
    made = config("transcoder", apply_b_dec_to_input=False, metadata={"hook_name": hook})
    mine = model.with_encoder(directory(tmp_path / "sae", made, arrays()))
    codes = plm.encode(mine, SENTENCES, kind=hook)
    same_codes(codes, *features(activations(model, hook), arrays(), input_bias=False))


def test_centred_writing_weights_are_folded(model, tmp_path):
    metadata = {"hook_name": HOOK, "model_from_pretrained_kwargs": {"center_writing_weights": True, "fold_ln": True}}
    mine = model.with_encoder(directory(tmp_path / "sae", config(metadata=metadata), arrays()))
    x = activations(model)
    codes = plm.encode(mine, SENTENCES, kind=HOOK)
    same_codes(codes, *features(x - x.mean(1, keepdim=True), arrays()))


def test_older_configurations_loaded_encoders_and_mappings(model, tmp_path):
    tensors = arrays()
    older = {"hook_point": HOOK, "hook_point_layer": 1, "d_in": D, "normalize_activations": False}
    loaded = SimpleNamespace(cfg=SimpleNamespace(to_dict=config), **tensors)
    mapping = {key: tensors[key].numpy() for key in ("W_enc", "b_enc", "b_dec")}
    wanted = plm.encode(model.with_encoder(mapping, HOOK), SENTENCES, kind=HOOK).packed()
    for source in (directory(tmp_path / "sae", older, tensors), loaded):
        np.testing.assert_array_equal(plm.encode(model.with_encoder(source), SENTENCES, kind=HOOK).packed(), wanted)


def test_an_encoder_trained_behind_bos_says_so(model, tmp_path, caplog):
    metadata = {"hook_name": HOOK, "prepend_bos": True}
    model.with_encoder(directory(tmp_path / "sae", config(metadata=metadata), arrays()))
    assert "bos=True" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"W_enc": torch.ones(N, D)}, r"W_enc is \[40, 24\], as \[d_in, d_sae\], and b_enc has shape \[40\].*W_enc\.T"),
        ({"W_enc": torch.ones(D, 12)}, r"b_enc has shape \[40\] for \[12\]"),
        ({"W_enc": torch.ones(D)}, r"W_enc has shape \[24\], expected \[d_in, d_sae\]"),
        ({"W_enc": torch.full((D, N), torch.nan)}, "960 of 960 values of W_enc are NaN"),
        ({"threshold": torch.ones(D)}, r"threshold has shape \[24\] for \[40\]"),
        ({"scaling_factor": torch.full((N,), 2.0)}, "scaling_factor other than 1"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_at_once(model, tmp_path, changed, said):
    with pytest.raises(plm.PolytopeError, match=said) as error:
        model.with_encoder(directory(tmp_path / "sae", config(), arrays() | changed))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"architecture": "topk"}, "architecture 'topk' has no code of signs"),
        ({"architecture": "gated"}, "architecture 'gated' has no code of signs"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm'"),
        ({"activation_fn": "tanh-relu"}, "activation 'tanh-relu'"),
        ({"metadata": {}}, "no hook point is said; give hook="),
        ({"metadata": {"hook_name": HOOK, "hook_head_index": 2}}, "hook_head_index = 2"),
        (
            {"metadata": {"hook_name": "blocks.1.mlp.hook_post", "model_from_pretrained_kwargs": {"fold_ln": True}}},
            "weights with fold_ln, whose blocks.1.mlp.hook_post is another vector",
        ),
        ({"metadata": 3}, "no configuration of an encoder"),
    ],
)
def test_what_is_no_code_of_signs_is_refused(model, tmp_path, changed, said):
    with pytest.raises(plm.PolytopeError, match=said) as error:
        model.with_encoder(directory(tmp_path / "sae", {**config(), **changed}, arrays()))
    assert "\n" not in str(error.value)


def test_an_encoder_of_another_width_and_what_is_none(model, tmp_path):
    wide = {"W_enc": torch.ones(30, N)}
    with pytest.raises(plm.PolytopeError, match="weight takes 30 values, the activation there has 24"):
        model.with_encoder(wide, HOOK)
    with pytest.raises(plm.PolytopeError, match="takes 40 values, the activation there has 24; it is turned round"):
        model.with_encoder({"W_enc": torch.ones(N, D)}, HOOK)
    with pytest.raises(plm.PolytopeError, match="weight takes 30 values, the activation there has 24"):
        model.with_encoder(wide, "blocks.1.attn.hook_z")
    with pytest.raises(plm.PolytopeError, match=r"unknown array 'W'"):
        model.with_encoder({"W": torch.ones(D, N)}, HOOK)
    with pytest.raises(plm.PolytopeError, match=r"no W_enc among its arrays \(b_enc\)"):
        model.with_encoder({"b_enc": torch.ones(N)}, HOOK)
    with pytest.raises(plm.PolytopeError, match=r"encoder = 3: give a directory"):
        model.with_encoder(3, HOOK)
    with pytest.raises(plm.PolytopeError, match=r"no cfg\.json here"):
        model.with_encoder(tmp_path)
    path = directory(tmp_path / "sae", config(), arrays())
    (path / "sae_weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(plm.PolytopeError, match="no safetensors"):
        model.with_encoder(path)
    (path / "sae_weights.safetensors").unlink()
    os.mkfifo(path / "sae_weights.safetensors")
    with pytest.raises(plm.PolytopeError, match="FIFO"):
        model.with_encoder(path)
