"""Capture beside the bare transformers trunk: tokens per second, peak memory, bytes per token."""

from __future__ import annotations

import importlib
import multiprocessing
import shutil
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, interleaved, median_ratio, peak_memory, report
from polytope_lm.codes.plan import BATCH_TOKENS
from polytope_lm.documents import Document

if TYPE_CHECKING:
    from collections.abc import Callable

WORDS = 1000
LONG, SHORT = 1024, (10, 60)


def small_gpt2(**changes: int) -> plm.models.model.Model:
    """Return GPT-2 small's shape with random weights, and a tokenizer for which every word is one token."""
    vocabulary = {f"w{i}": i for i in range(WORDS)} | {"<unk>": WORDS}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - no password
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config(**changes)).eval()
    return plm.wrap(hf, PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>"), name="gpt2-shape")  # noqa: S106


def texts(lengths: np.ndarray, seed: int = 0) -> list[Document]:
    """Return documents of so many tokens each."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(0, WORDS, n) for n in lengths)
    return [Document(id=str(i), text=" ".join(f"w{w}" for w in words)) for i, words in enumerate(drawn)]


def run_capture(model: plm.models.model.Model, documents: list[Document]) -> None:
    """Capture all layers into a new store: tokenising, estimate, packing, writing, checksums included."""
    directory = tempfile.mkdtemp()
    plm.capture(model, plm.documents(documents), layers="all", to=Path(directory) / "store", progress=False)
    shutil.rmtree(directory)


@torch.inference_mode()
def run_trunk(model: plm.models.model.Model, documents: list[Document]) -> None:
    """Run the bare trunk (sdpa, no LM head, no hooks, no masks) on batches made beforehand."""
    for ids in trunk_batches(documents):
        model.trunk(ids, use_cache=False)


def trunk_batches(documents: list[Document]) -> list[torch.Tensor]:
    """Sort by length and pad on the right under capture's own token budget."""
    rows = sorted(([int(w[1:]) for w in d.text.split()] for d in documents), key=len)
    made: list[list[list[int]]] = [[]]
    for row in rows:
        if made[-1] and (len(made[-1]) + 1) * len(row) > BATCH_TOKENS:
            made.append([])
        made[-1].append(row)
    return [torch.tensor([r + [0] * (len(b[-1]) - len(r)) for r in b]) for b in made]


def speed(name: str, lengths: np.ndarray, repeats: int, must: float) -> Figure:
    """Time capture and trunk in turn on the same documents."""
    model, documents = small_gpt2(), texts(lengths)
    run_capture(model, documents[:2])
    run_trunk(model, documents[:2])
    runs = {"ours": partial(run_capture, model, documents), "trunk": partial(run_trunk, model, documents)}
    seconds = interleaved(runs, repeats)
    total = int(lengths.sum())
    return Figure(
        f"capture of all 12 layers, {name}, {total:,} tokens",
        total / median(seconds["ours"]),
        "tokens/s",
        peer=total / median(seconds["trunk"]),
        peer_name="bare trunk",
        ratio=median_ratio(seconds["trunk"], seconds["ours"]),
        must=must,
        note=f"median of {repeats} interleaved pairs",
    )


def _peak(
    run: Callable[[plm.models.model.Model, list[Document]], None], lengths: np.ndarray, imports: str | None
) -> float:
    """Run in this (new) process and return its peak memory in 10^6 bytes."""
    if imports is not None:
        importlib.import_module(imports)
    run(small_gpt2(), texts(lengths))
    return peak_memory()


def memory(lengths: np.ndarray, repeats: int) -> list[Figure]:
    """Compare the median peak memory of new processes: as they are, and with capture's libraries in both."""
    kinds = {"ours": (run_capture, None), "trunk": (run_trunk, None), "equal": (run_trunk, "polytope_lm.codes.capture")}
    peaks: dict[str, list[float]] = {name: [] for name in kinds}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(repeats):
            for name, (run, imports) in kinds.items():
                peaks[name].append(pool.apply(_peak, (run, lengths, imports)))
    ours, trunk, equal = (median(peaks[name]) for name in kinds)
    spread = f"medians of {repeats} processes each, " + ", ".join(
        f"{name} {min(each):.0f} to {max(each):.0f}" for name, each in peaks.items()
    )
    return [
        _more("peak memory of capture", ours, trunk, f"imports included; {spread}"),
        _more("the same, its imports in both processes", ours, equal, spread),
    ]


def _more(name: str, ours: float, trunk: float, note: str) -> Figure:
    return Figure(name, ours, "MB", trunk, "bare trunk", ours / trunk, 1.15, "at most", note)


def size(tokens: int) -> list[Figure]:
    """Count a store's bytes at a site as wide as GPT-2 small's (the trunk's width plays no part)."""
    model = small_gpt2(n_layer=1, n_embd=16, n_head=1, n_inner=3072)
    directory = Path(tempfile.mkdtemp())
    lengths = np.full(tokens // 500, 500)
    store = plm.capture(model, plm.documents(texts(lengths)), layers=[0], to=directory / "store", progress=False)
    parts = {
        name: sum(f.stat().st_size for f in store.path.rglob(name))
        for name in ("*.npy", "tokens.parquet", "documents.parquet")
    }
    rest = sum(f.stat().st_size for f in store.path.rglob("*") if f.is_file()) - sum(parts.values())
    rows, shards = len(store), len(store.shards)
    shutil.rmtree(directory)
    codes, table = parts["*.npy"] / rows, (parts["tokens.parquet"] + rest) / rows
    note = f"at {rows:,} tokens in {shards} shards; records and manifest included"
    return [
        Figure(
            "store, bits of one site",
            codes,
            "bytes/token",
            384,
            "ceil(N/8)",
            codes / 384,
            1.01,
            "at most",
            "with .npy headers",
        ),
        Figure("store, token table without labels", table, "bytes/token", must=8, bound="at most", note=note),
        Figure("store, texts for showing contexts", parts["documents.parquet"] / rows, "bytes/token"),
    ]


def main() -> None:
    """Read the options, measure, print."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--long", type=int, default=8, help="documents of 1,024 tokens")
    parser.add_argument("--short", type=int, default=200, help="documents of 10 to 60 tokens")
    options = parser.parse_args()
    machine = describe()
    long = np.full(options.long, LONG)
    short = np.random.default_rng(0).integers(*SHORT, options.short, endpoint=True)
    figures = [
        speed("1,024-token documents", long, options.repeats, 0.97),
        speed("documents of 10 to 60 tokens", short, options.repeats, 0.9),
        *memory(long, options.repeats),
        *size(100_000),
    ]
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
