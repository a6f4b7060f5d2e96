"""From a name to a model: which place a name means, the hub's cache, and every way in which it can fail."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import accelerate
import numpy as np
import pytest
import torch
import transformers
from small import SENTENCES, randomised
from transformers import BertTokenizer

import polytope_lm as plm
from polytope_lm.codes.capture import with_model
from polytope_lm.codes.reread import at_hand
from polytope_lm.codes.store import layout
from polytope_lm.models.sources import changed_parts, locate, revision_parts


@pytest.fixture(scope="module")
def saved(gpt2, tokenizer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "mine"
    gpt2().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def directory(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "mine"))


def test_a_directory(saved, model, monkeypatch):
    monkeypatch.chdir(saved.parent)
    expected = plm.encode(model, SENTENCES)
    revisions = set()
    for name in (str(saved), saved, "./mine", Path("mine"), str(saved) + os.sep):
        loaded = plm.load(name)
        np.testing.assert_array_equal(plm.encode(loaded, SENTENCES).packed(2), expected.packed(2))
        assert loaded.name == "mine", "no path of this machine: it would be in every store"
        revisions.add(loaded.revision)
    assert len(revisions) == 1
    assert revisions.pop().startswith("files-")
    assert plm.wrap(loaded.hf, loaded.tokenizer).name == "mine"
    assert plm.load(saved, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(plm.PolytopeError, match="unknown dtype 'int8'; choose among float32"):
        plm.load(saved, dtype="int8")


def test_which_place_a_name_means(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tiny-gpt2", "gpt2", "owner/name"):
        shutil.copytree(saved, tmp_path / name)
    assert plm.load("tiny-gpt2").n_layers != 3, "a packaged name goes before a directory"
    assert locate("./tiny-gpt2").revision != locate("tiny-gpt2").revision
    assert locate("./tiny-gpt2").local
    assert locate(Path("tiny-gpt2")).revision == locate("./tiny-gpt2").revision
    assert not locate("gpt2").local, "without a separator it is no path"
    assert locate("owner/name").local, "a directory that is there goes before the hub"
    assert not locate("owner/other").local
    assert locate("owner/other", "v1").revision == "v1"
    for path in ("./none", "../none", "/none", "~/none", "a/b/c", "none/"):
        with pytest.raises(plm.PolytopeError, match="no such directory"):
            locate(path)
    for name in ("", "a b", "--x", "https:x"):
        with pytest.raises(plm.PolytopeError, match="is no model name"):
            locate(name)


def one_line(path: Path, said: str, **options) -> None:
    with pytest.raises(plm.PolytopeError, match=said) as error:
        plm.load(path, **options)
    assert "\n" not in str(error.value)


def test_what_a_directory_lacks_is_one_line(directory):
    weights = directory / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    one_line(directory, "can't read")
    weights.write_bytes(b"\xff" * 100)
    one_line(directory, "can't read")
    weights.unlink()
    one_line(directory, "no weights here")
    torch.save({}, directory / "pytorch_model.bin")
    one_line(directory, r"pickles \(pytorch_model\.bin\), which can run code.*save_pretrained")
    weights.write_bytes(content)
    config = (directory / "config.json").read_text()
    for broken, said in [
        ("{", "config.json: malformed JSON"),
        (json.dumps({"model_type": "unheard-of"}), "can't read a model"),
    ]:
        (directory / "config.json").write_text(broken)
        one_line(directory, said)
    (directory / "config.json").write_text(json.dumps(json.loads(config) | {"n_layer": 4}))
    one_line(directory, r"weights missing from its files: transformer\.h\.3\.")
    (directory / "config.json").unlink()
    one_line(directory, "no config.json here")


def test_a_directory_without_a_tokenizer_is_one_line(directory):
    for file in directory.glob("token*"):
        file.unlink()
    one_line(directory, "mine: .*tokenizer")


def test_slow_tokenizers_are_refused(gpt2, tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(plm.PolytopeError, match="Slow is a slow tokenizer; labels need character offsets"):
        plm.wrap(gpt2(), Slow())
    assert BertTokenizer is not None
    with pytest.raises(plm.PolytopeError, match="can't wrap a str"):
        plm.wrap("gpt2")


def test_the_revision_of_a_wrapped_model_is_its_weights(gpt2, tokenizer):
    revision = plm.wrap(gpt2(), tokenizer).revision
    assert revision == plm.wrap(gpt2(), tokenizer).revision
    for key in ("transformer.wte.weight", "transformer.h.2.ln_2.bias"):
        other = gpt2()
        other.get_parameter(key).data.view(-1)[17] += 1e-6
        assert plm.wrap(other, tokenizer).revision != revision


SIZE = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"max_position_embeddings": 64}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHILD = """
import sys, polytope_lm as plm
try:
    model = plm.load(sys.argv[1])
    print(model.name, model.revision, len(plm.encode(model, "A bank")))
except plm.PolytopeError as error:
    print("refused", error)
"""


def in_process(home: Path, name: str, **environment: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {"HF_HOME": str(home), "OMP_NUM_THREADS": "1", "no_proxy": "*"} | environment
    done = subprocess.run(
        [sys.executable, "-c", CHILD, name], env=env, capture_output=True, text=True, check=True, timeout=100
    )
    return done.stdout.strip()


def test_a_model_in_the_hub_s_cache(saved, tmp_path):
    cache = tmp_path / "hub/models--someone--tiny"
    shutil.copytree(saved, cache / "snapshots" / COMMIT)
    (cache / "refs").mkdir()
    (cache / "refs/main").write_text(COMMIT)
    assert in_process(tmp_path, "someone/tiny", HF_HUB_OFFLINE="1").startswith(f"someone/tiny {COMMIT} config-")
    unreachable = in_process(tmp_path, "someone/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert unreachable.startswith(f"someone/tiny {COMMIT} config-"), "what is in the cache needs no network"
    missing = in_process(tmp_path, "someone/none", HF_ENDPOINT="http://127.0.0.1:9")
    assert missing.startswith("refused someone/none: not a packaged model (")
    assert "check the name and the network" in missing
    assert len(missing.splitlines()) == 1


def test_a_hub_that_hangs_up_is_not_asked_again_and_again(tmp_path):
    calls = []

    def hang_up(server):
        with contextlib.suppress(OSError):  # the test's end closes the server
            while True:
                calls.append(server.accept()[0].close())

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        said = in_process(tmp_path, "someone/none", HF_ENDPOINT=f"http://127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
    assert said.startswith("refused someone/none: not a packaged model (")
    assert 1 <= len(calls) <= 12, f"{len(calls)} calls again and again"


@pytest.mark.parametrize("device", ["foo", "cuda:99", None])
def test_a_device_that_is_not_there_is_one_line(saved, device):
    with pytest.raises(plm.PolytopeError, match=r"device .* can't be used here .*: give 'cpu'") as error:
        plm.load(saved, device=device)
    assert "\n" not in str(error.value)


def test_a_name_of_another_type_is_one_line():
    with pytest.raises(plm.PolytopeError, match="5 is no model name: give a string or a path"):
        plm.load(5)


def other_tokenizer(tokenizer):
    changed = copy.deepcopy(tokenizer)
    changed.add_tokens(["zebra"])
    return changed


@pytest.mark.parametrize("part", ["weights", "config", "tokenizer"])
def test_a_changed_part_of_a_model_is_named_where_a_store_meets_it(gpt2, tokenizer, tmp_path, part):
    model = plm.wrap(gpt2(), tokenizer, name="m")
    store = plm.capture(model, SENTENCES, to=tmp_path / "store")
    hf, cut = gpt2(), tokenizer
    if part == "weights":
        hf.get_parameter("transformer.h.2.ln_2.bias").data[3] += 1e-6
    elif part == "config":
        settings = hf.config.to_dict() | {"scale_attn_by_inverse_layer_idx": True}
        hf = type(hf)(type(hf.config)(**settings)).eval()
        hf.load_state_dict(gpt2().state_dict())
    else:
        cut = other_tokenizer(tokenizer)
    other = plm.wrap(hf, cut, name="m")
    was, now = revision_parts(model.revision), revision_parts(other.revision)
    assert {key for key in was if was[key] != now[key]} == {part}
    for meet in (
        lambda: plm.capture(other, SENTENCES, to=store.path),
        lambda: with_model(plm.open_store(store.path), other),
        lambda: at_hand(store, other),
    ):
        with pytest.raises(plm.PolytopeError, match=f"another {part}[,)]") as caught:
            meet()
        assert "\n" not in str(caught.value)


def test_a_revision_stays_where_nothing_that_makes_codes_changes(gpt2, tokenizer):
    before = plm.wrap(gpt2(), tokenizer, name="m").revision
    hf = gpt2()
    hf.config.name_or_path, hf.config.return_dict, hf.config.use_cache = "/elsewhere", False, False
    used = copy.deepcopy(tokenizer)
    used(["a b c d e f"], truncation=True, max_length=2)
    assert plm.wrap(hf, used, name="other").revision == before


def test_a_directory_s_tokenizer_and_settings_are_in_its_revision(directory):
    first = plm.load(directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"_name_or_path": "x", "use_cache": False}))
    assert plm.load(directory).revision == first.revision
    (directory / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-3}))
    assert changed_parts(first.revision, plm.load(directory).revision) == (["config"], True)
    (directory / "config.json").write_text(json.dumps(config))
    other_tokenizer(first.tokenizer).save_pretrained(directory)
    assert changed_parts(first.revision, plm.load(directory).revision) == (["tokenizer"], True)


def rename(store: Path, revision: str) -> None:
    """Give a store the revision that it would have had before config and tokenizer were recorded."""
    was = json.loads((store / "manifest.json").read_text())
    manifest = was | {"revision": revision}
    for shard in (store / "shards").iterdir():
        record = replace(layout.read_record(shard, was), manifest=layout.digest(manifest))
        (shard / layout.SHARD).write_bytes(record.to_bytes())
    content = layout.dump(manifest)
    (store / "manifest.json").write_bytes(content)
    (store / layout.MANIFEST_SUM).write_bytes(layout.manifest_sum(content))


def test_a_store_of_before_says_what_can_not_be_compared(directory, tmp_path, caplog):
    model = plm.load(directory)
    store = plm.capture(model, SENTENCES, to=tmp_path / "store").path
    digest = hashlib.sha256()
    for file in ("config.json", "model.safetensors"):  # as it was: names and hashes, in order
        digest.update(file.encode())
        digest.update(hashlib.sha256((directory / file).read_bytes()).digest())
    rename(store, "directory-" + digest.hexdigest()[:16])
    expected = plm.encode(model, SENTENCES, keep="u").activations("u", 1)
    read = with_model(plm.open_store(store), model).activations("u", 1)
    np.testing.assert_allclose(read, expected, atol=1e-5)
    assert "configuration and tokenizer were not recorded" in caplog.text
    with pytest.raises(plm.PolytopeError, match="config and tokenizer were not recorded"):
        plm.capture(model, SENTENCES, to=store)
    rename(store, "directory-" + "0" * 16)
    with pytest.raises(plm.PolytopeError, match="another weights,"):
        with_model(plm.open_store(store), model)


def test_weights_come_from_safetensors_beside_the_index_alone(directory, gpt2, tmp_path):
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").unlink()
    (directory / "part.safetensors").write_bytes(whole)
    (tmp_path / "outside.safetensors").write_bytes(whole)
    torch.save(gpt2().state_dict(), directory / "part.bin")
    names = list(gpt2().state_dict())

    def index(*files: object) -> None:
        found = {name: files[i % len(files)] for i, name in enumerate(names)}
        (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": found}))

    index("part.safetensors")
    revision = plm.load(directory).revision
    for file in ("part.bin", "../outside.safetensors", str(tmp_path / "outside.safetensors"), 3, "a\\b.safetensors"):
        index("part.safetensors", file)
        one_line(directory, r"model\.safetensors\.index\.json takes .* from ")
    (directory / "model.safetensors.index.json").write_text("[]")
    one_line(directory, "has no weight_map")
    index("part.safetensors")
    (directory / "part.safetensors").unlink()
    one_line(directory, "no weights here|pickles")
    (directory / "part.safetensors").symlink_to(tmp_path / "outside.safetensors")
    assert plm.load(directory).revision == revision, "a link's content is what is hashed"
    (directory / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    one_line(directory, "adapter_config.json.*merge_and_unload")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_what_is_no_regular_file_is_refused_without_waiting(directory, file):
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("gone")):
        (directory / file).unlink(missing_ok=True)
        make(directory / file)
        one_line(directory, re.escape(file))


@pytest.mark.parametrize(
    "change",
    [{"n_layer": 10**9}, {"n_layer": 1e9}, {"n_layer": "x"}, {"n_head": 5}, {"a": {"num_experts": 10**9}},
     {"activation_function": "nonesuch"}, {"vocab_size": -1}, {"n_positions": 10**9}],
)  # fmt: skip
def test_settings_that_can_not_be_are_one_line(directory, change):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | change))
    one_line(directory, "mine: |config.json")
    (directory / "config.json").write_text("[" * 100_000)
    one_line(directory, "config.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_said_with_their_place(gpt2, tokenizer, value):
    hf = gpt2()
    hf.get_parameter("transformer.h.0.attn.c_attn.weight").data[3, 70] = value
    with pytest.raises(
        plm.PolytopeError, match=r"1 of \d+ weights of transformer\.h\.0\.attn\.c_attn\.weight.*\[3, 70\]"
    ):
        plm.wrap(hf, tokenizer)


def test_models_without_values_or_text_are_refused(gpt2, tokenizer):
    for hf in (gpt2().to("meta"), accelerate.cpu_offload(gpt2(), execution_device=torch.device("cpu"))):
        with pytest.raises(plm.PolytopeError, match="on the meta device"):
            plm.wrap(hf, tokenizer)
    vision = transformers.ViTModel(transformers.ViTConfig(**SIZE | {"image_size": 8, "patch_size": 4}))
    with pytest.raises(plm.PolytopeError, match="ViTModel reads pixel_values"):
        plm.wrap(vision, tokenizer)


def test_heads_that_classify_give_no_next_token(tokenizer):
    config = transformers.LlamaConfig(**SIZE, vocab_size=len(tokenizer), pad_token_id=0, num_labels=5)
    for head, has in (("SequenceClassification", False), ("TokenClassification", False), ("CausalLM", True)):
        hf = getattr(transformers, f"LlamaFor{head}")(config)
        assert plm.wrap(hf, tokenizer).has_logits is has


def test_a_model_that_takes_images_too_is_read_by_its_text_model(tokenizer, tmp_path):
    text = SIZE | {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "head_dim": 8}
    vision = SIZE | {"image_size": 8, "patch_size": 4}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision)
    hf = randomised(transformers.Gemma3ForConditionalGeneration(config))
    model = plm.wrap(hf, tokenizer)
    alone = transformers.Gemma3ForCausalLM(config.text_config)
    alone.model.load_state_dict(hf.model.language_model.state_dict())
    codes, expected = plm.encode(model, SENTENCES), plm.encode(plm.wrap(alone, tokenizer), SENTENCES)
    assert (model.n_layers, model.has_logits) == (2, True)
    for layer in codes.layers:
        np.testing.assert_array_equal(codes.packed(layer), expected.packed(layer))
    hf.save_pretrained(tmp_path / "images")
    tokenizer.save_pretrained(tmp_path / "images")
    loaded = plm.load(tmp_path / "images")
    assert loaded.has_logits
    np.testing.assert_array_equal(plm.encode(loaded, SENTENCES).packed(1), expected.packed(1))
