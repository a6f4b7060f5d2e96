"""From a name to a model: which place a name means, the hub's cache, and every way in which it can fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from small import SENTENCES
from transformers import BertTokenizer

import polytope_lm as plm
from polytope_lm.models.sources import locate


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
    assert revisions.pop().startswith("directory-")
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
        ("{", "can't read"),
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
    assert in_process(tmp_path, "someone/tiny", HF_HUB_OFFLINE="1").startswith(f"someone/tiny {COMMIT} ")
    start = time.monotonic()
    unreachable = in_process(tmp_path, "someone/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert unreachable.startswith(f"someone/tiny {COMMIT} "), "what is in the cache needs no network"
    missing = in_process(tmp_path, "someone/none", HF_ENDPOINT="http://127.0.0.1:9")
    assert missing.startswith("refused someone/none: not a packaged model (")
    assert "check the name and the network" in missing
    assert len(missing.splitlines()) == 1
    assert time.monotonic() - start < 40, "asked again and again"


@pytest.mark.parametrize("device", ["foo", "cuda:99", None])
def test_a_device_that_is_not_there_is_one_line(saved, device):
    with pytest.raises(plm.PolytopeError, match=r"device .* can't be used here .*: give 'cpu'") as error:
        plm.load(saved, device=device)
    assert "\n" not in str(error.value)


def test_a_name_of_another_type_is_one_line():
    with pytest.raises(plm.PolytopeError, match="5 is no model name: give a string or a path"):
        plm.load(5)
