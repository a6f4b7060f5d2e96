"""Fixtures that many tests share: a small tokenizer and small models with random weights."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import shutil
from pathlib import Path

import jaxtyping
import pytest
import shapes
import torch
from pages import FIRST_SCREEN, Opened

# Shapes in the signatures are checked while the tests run.
shapes.install()

from typing import TYPE_CHECKING

from hypothesis import settings
from small import SENTENCES, randomised
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

import polytope_lm as plm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

logging.set_verbosity_error()
torch.set_num_threads(1)
# A first example may compile a kernel, and a busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that draw their examples, for `pytest -m property`."""
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("property")


@pytest.fixture
def users_arrays() -> Iterator[None]:
    """Switch the check of shapes off: a user has no such check, and arrays of a wrong shape get one line."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The labelled development data, where there is any."""
    if not SHARED.is_dir():
        pytest.skip(f"no development data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 tokens, GPT-2's build, without a BOS of its own."""
    bpe = Tokenizer(BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(SENTENCES * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


@pytest.fixture(scope="session")
def gpt2() -> Callable[..., GPT2LMHeadModel]:
    """Make a GPT-2 of three layers, 24 wide, with random weights."""

    def make(seed: int = 0, **options: object) -> GPT2LMHeadModel:
        settings = {
            "n_layer": 3,
            "n_embd": 24,
            "n_head": 2,
            "vocab_size": 400,
            "n_positions": 64,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        return randomised(GPT2LMHeadModel(GPT2Config(**(settings | options))), seed)

    return make


@pytest.fixture(scope="session")
def llama() -> Callable[..., LlamaForCausalLM]:
    """Make a Llama of two layers, gated, with random weights; 51 neurons a layer, so that bits do not fill "
    "bytes."""

    def make(seed: int = 0, **options: object) -> LlamaForCausalLM:
        settings = {
            "hidden_size": 24,
            "intermediate_size": 51,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 400,
            "max_position_embeddings": 64,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
        return randomised(LlamaForCausalLM(LlamaConfig(**(settings | options))), seed)

    return make


@pytest.fixture(scope="session")
def model(gpt2: Callable[..., GPT2LMHeadModel], tokenizer: PreTrainedTokenizerFast) -> plm.models.model.Model:
    """The small GPT-2, wrapped."""
    return plm.wrap(gpt2(), tokenizer, name="small-gpt2")


@pytest.fixture(scope="session")
def gated(llama: Callable[..., LlamaForCausalLM], tokenizer: PreTrainedTokenizerFast) -> plm.models.model.Model:
    """The small Llama, wrapped."""
    return plm.wrap(llama(), tokenizer, name="small-llama")


@pytest.fixture
def sentences() -> list[str]:
    """Four sentences of different lengths."""
    return list(SENTENCES)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright's python package (extra dev)")
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs a chromium on the path (Debian: apt-get install chromium), or CHROMIUM=/its/path")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[[Path], Opened]]:
    """Open a page and note every error and every request that it makes."""
    made = []

    def open_page(path: Path) -> Opened:
        page = browser.new_page(viewport=FIRST_SCREEN)
        made.append(page)
        trouble: list[str] = []
        requests: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda said: trouble.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return Opened(page, trouble, requests)

    yield open_page
    for page in made:
        page.close()
