"""What a GPU does: capture beside the bare trunk, exact neighbours, crossings and paths, each beside its peer.

`python -m benchmarks.gpu --out DIR` takes less than six minutes on an H100 and writes `gpu.json` and `gpu.md` there,
after every section anew. `--quick` measures a little of everything; `--device cpu --tiny` shows that it runs. A section
that fails prints why in one line and the others go on. Peers that are absent are named, with the reason. It needs no
network.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from huggingface_hub import constants as hub

import polytope_lm as plm
from benchmarks._machine import Figure, describe
from polytope_lm.codes.forward import fill, in_memory
from polytope_lm.codes.hamming import gpu, hamming
from polytope_lm.codes.plan import make_plan
from polytope_lm.documents import Document
from polytope_lm.models.hooks import pack_rows
from polytope_lm.seeds import tie_order

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
WORDS, LENGTH, WIDTH, K = 1000, 1024, 3072, 16
CERTAIN = 1e-4
LONGEST = 360
"""Seconds that everything may take."""


class Absent(Exception):  # noqa: N818 - no error: it is said, and the rest is measured
    """A peer that is not here, and why."""


@dataclass(frozen=True)
class Run:
    """Where and how much is measured."""

    device: torch.device
    tiny: bool
    quick: bool
    scratch: Path
    absent: dict[str, str] = field(default_factory=dict)

    def peer(self, name: str, measure: Callable[[], T]) -> T | None:
        """Return what a peer gives, or say why there is nothing of it."""
        try:
            return measure()
        except Exception as error:  # noqa: BLE001 - whatever fails in a peer, ours is measured
            reason = (str(error).splitlines() or [""])[0][:120]
            self.absent[name] = reason if isinstance(error, Absent) else f"failed: {type(error).__name__}: {reason}"
            print(f"{name} is absent: {self.absent[name]}", flush=True)
            return None

    def size(self, whole: int, quick: int, tiny: int) -> int:
        """Return the size for this run."""
        return tiny if self.tiny else quick if self.quick else whole

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object], repeats: int = 3) -> float:
        """Return the median time of a run that was warmed up."""
        found = []
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            found.append(time.perf_counter() - start)
        return median(found)


def random_model(run: Run, shape: str, dtype: torch.dtype = torch.bfloat16) -> plm.models.model.Model:
    """Return GPT-2 small's or a 1B Llama's shape with random weights and a word-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import (  # noqa: PLC0415
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )  # fmt: skip

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)} | {"<unk>": WORDS}, unk_token="<unk>"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(0)
    small = {
        "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 96, "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }  # fmt: skip
    billion = {
        "num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
        "num_key_value_heads": 8, "max_position_embeddings": 2048,
    }  # fmt: skip
    with torch.device(run.device):
        if shape == "gpt2":
            hf: Any = GPT2LMHeadModel(GPT2Config(**({"n_layer": 2, "n_embd": 32, "n_head": 2} if run.tiny else {})))
        else:
            hf = LlamaForCausalLM(LlamaConfig(vocab_size=32_000, **(small if run.tiny else billion)))
    hf = hf.to(dtype).to(run.device).eval()
    return plm.wrap(hf, PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>"), name=f"{shape}-shape")  # noqa: S106


def texts(count: int, length: int = LENGTH) -> list[Document]:
    """Return documents of so many tokens each."""
    drawn = np.random.default_rng(0).integers(0, WORDS, (count, length))
    return [Document(id=str(i), text=" ".join(f"w{w}" for w in row)) for i, row in enumerate(drawn)]


def machine(run: Run) -> list[Figure]:
    """Measure the ceilings: copies to the host, and int8 and bfloat16 products."""
    figures = []
    numbers = torch.zeros(run.size(2**30, 2**28, 2**20), dtype=torch.uint8, device=run.device)
    host = torch.empty(numbers.shape, dtype=torch.uint8, pin_memory=run.device.type == "cuda")
    host.copy_(numbers)
    took = run.seconds(lambda: host.copy_(numbers, non_blocking=True))
    figures.append(Figure("copy to page-locked memory", numbers.numel() / took / 1e9, "GB/s"))
    n = run.size(8192, 8192, 64)
    a = torch.randint(0, 2, (n, n), dtype=torch.int8, device=run.device) * 2 - 1
    torch._int_mm(a, a.t())
    took = run.seconds(lambda: torch._int_mm(a, a.t()), 10)
    figures.append(Figure(f"int8 product of {n:,} x {n:,}", 2 * n**3 / took / 1e12, "TOP/s"))
    b = torch.randn(n, n, device=run.device).bfloat16()
    b @ b
    took = run.seconds(lambda: b @ b, 10)
    figures.append(Figure(f"bfloat16 product of {n:,} x {n:,}", 2 * n**3 / took / 1e12, "TFLOP/s"))
    return figures


def packing(run: Run) -> list[Figure]:
    """Pack signs where they are: equal to numpy, and how fast."""
    rows = run.size(65_536, 65_536, 64)
    h = torch.randn(rows, WIDTH, device=run.device).bfloat16()
    packed, finite = pack_rows(h)
    expected = np.packbits((h[:64] > 0).cpu().numpy(), axis=1, bitorder="little")
    assert np.array_equal(packed[:64].cpu().numpy(), expected), "packed bits differ from numpy's"
    assert bool(finite.all())
    took = run.seconds(lambda: pack_rows(h), 10)
    return [Figure("packing of bfloat16 on the device", h.numel() * 2 / took / 1e9, "GB/s read", note="equal to numpy")]


def captures(run: Run, shape: str) -> list[Figure]:
    """Capture all layers to host memory and to disk beside the bare trunk."""
    model = random_model(run, shape)
    count = run.size(*((512, 128, 4) if shape == "gpt2" else (256, 64, 4)))
    documents = texts(count, 64 if run.tiny else LENGTH)
    budget = 65_536 if not run.tiny else 128
    plan = make_plan(model, layers="all", kind=None, keep=(), tokens="all", batch_tokens=budget)
    begun = time.perf_counter()
    windowed = plan.windowing.apply(documents, 0, model.tokenizer)
    tokenising = windowed.n_tokens / (time.perf_counter() - begun)
    ids = torch.from_numpy(np.stack([w.input_ids for w in windowed.windows]))
    batches = ids.split(max(1, budget // ids.shape[1]))

    @torch.inference_mode()
    def trunk() -> None:
        for batch in batches:
            model.trunk(batch.to(run.device), use_cache=False)

    arrays = in_memory(plan.wanted, windowed.n_kept)

    def ours() -> None:
        assert fill(model, windowed.windows, plan.wanted, arrays, batch_tokens=budget) == budget, "out of memory"

    trunk(), ours()
    pairs = [(run.seconds(trunk, 1), run.seconds(ours, 1)) for _ in range(run.size(5, 3, 1))]
    tokens = windowed.n_tokens
    bare, memory = (tokens / median(p[i] for p in pairs) for i in (0, 1))
    ratio = median(a / b for a, b in pairs)
    what = f"{shape} shape, bfloat16, {count} documents of {ids.shape[1]:,} tokens, {model.n_layers} layers"
    figures = [
        Figure(
            f"bits to host memory, {what}", memory, "tokens/s", bare, "bare trunk", ratio, 0.9,
            note=f"tokenised beforehand ({tokenising:,.0f} tokens/s); median of {len(pairs)} pairs",
        )
    ]  # fmt: skip
    _check_bits(model, ids[:2], arrays)
    rate = write_and_hash(run, sum(a[: min(len(a), 131_072)].nbytes for a in arrays.values()), len(arrays))
    per_token = sum(a.shape[1] for a in arrays.values())
    lower = min(bare, rate / per_token)
    store = run.scratch / f"store-{shape}"
    ways = {"progress": False, "batch_tokens": budget, "shard_documents": run.size(128, 32, 2)}
    plm.capture(model, documents[:2], to=store, **ways)
    shutil.rmtree(store)
    # Long enough that the first shard's filling and the last one's writing, which nothing hides, don't count.
    times = run.size(4 if shape == "gpt2" else 2, 1, 1)
    many = texts(count * times, 64 if run.tiny else LENGTH)
    begun = time.perf_counter()
    plm.capture(model, many, to=store, **ways)
    disk = times * tokens / (time.perf_counter() - begun)
    shutil.rmtree(store)
    note = f"write and hash alone {rate / 1e9:.2f} GB/s = {rate / per_token:,.0f} tokens/s; tokenising included"
    name = "the lower of trunk and write-and-hash"
    ratio, what = disk / lower, f"bits to disk, {what.replace(f'{count} documents', f'{count * times:,} documents')}"
    figures.append(Figure(what, disk, "tokens/s", lower, name, ratio, 0.9, note=note))
    return figures + beside_lens(run, model, batches[0][:8].to(run.device), shape, memory)


@torch.inference_mode()
def _check_bits(model: plm.models.model.Model, ids: torch.Tensor, arrays: dict[str, np.ndarray]) -> None:
    """Compare the first documents' bits with a plain hook's, where the numbers are not near zero."""
    found: list[torch.Tensor] = []
    block = model.block(model.n_layers - 1)
    handle = next(iter(block.pre.values())).register_forward_hook(lambda _m, _i, out: found.append(out))
    model.trunk(ids.to(model.device), use_cache=False)
    handle.remove()
    h = found[0].flatten(0, 1).float().cpu().numpy()
    array = arrays[model.sites[model.n_layers - 1].key][: len(h)]
    differ = np.unpackbits(array, axis=1, bitorder="little")[:, : h.shape[1]].astype(bool) != (h > 0)
    # another number of rows is another order of bfloat16 sums
    assert differ.mean() < 0.01, f"{differ.mean():.2%} of the bits differ from a plain hook's"


def kernels(run: Run) -> list[Figure]:
    """Count the bits that other attention kernels flip against eager attention, near zero and beyond."""
    documents = texts(run.size(32, 16, 3), 64 if run.tiny else 256)
    figures = []
    for dtype in (torch.float32, torch.bfloat16):
        model = random_model(run, "gpt2", dtype)
        (_, eagerly), *others = attentions(run, model)
        eager = _read(model, documents, eagerly)
        near = np.abs(eager) < CERTAIN
        for name, prepare in others:
            read = partial(_read, model, documents, prepare)
            h = run.peer(f"{name}, {str(dtype)[6:]}", read)
            if h is None:
                continue
            differ = (h > 0) != (eager > 0)
            note = f"and {int((differ & near).sum()):,} below it, of {differ.size:,} bits"
            # In half precision sums are rounded more coarsely than that.
            must = 0 if dtype == torch.float32 else None
            what = f"{name} against eager, {str(dtype)[6:]}: bits that differ though abs(h) is at least {CERTAIN:g}"
            figures.append(Figure(what, int((differ & ~near).sum()), "bits", must=must, bound="at most", note=note))
    return figures


def attentions(run: Run, model: plm.models.model.Model) -> list[tuple[str, Callable[[], Any]]]:
    """Return each way of attention, and what sets it up for a context; eager first, compiled last."""
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415

    def of(name: str, context: Any = None) -> Any:
        try:
            model.hf.set_attn_implementation(name)
        except (ImportError, ValueError) as error:
            raise Absent((str(error).splitlines() or [""])[0][:120]) from None
        return context or nullcontext()

    def compiled() -> Any:
        # without a card there may be no compiler
        backend = "inductor" if run.device.type == "cuda" else "eager"
        of("sdpa")
        for block in model.hf.transformer.h:
            block.attn.compile(backend=backend)
        return nullcontext()

    return [
        ("eager attention", lambda: of("eager")),
        ("sdpa", lambda: of("sdpa")),
        ("torch's flash kernel", lambda: of("sdpa", sdpa_kernel(SDPBackend.FLASH_ATTENTION))),
        ("flash_attention_2", lambda: of("flash_attention_2")),
        ("compiled attention", compiled),
    ]


def _read(model: plm.models.model.Model, documents: list[Document], prepare: Callable[[], Any]) -> np.ndarray:
    """Return every layer's pre-activations of the documents, side by side, under one way of attention."""
    with prepare():
        try:
            codes = plm.encode(model, documents, batch_tokens=16_384)
        except RuntimeError as error:  # a kernel that this card or number format has not
            raise Absent((str(error).splitlines() or [""])[0][:120]) from None
    return np.concatenate([codes.activations("h", layer=n) for n in range(model.n_layers)], axis=1)


def write_and_hash(run: Run, size: int, files: int) -> float:
    """Return the bytes a second of writing as many bytes into as many files, synced and hashed, in eight threads."""
    content = np.random.default_rng(0).bytes(size // files)

    def one(number: int) -> None:
        path = run.scratch / f"file-{number}"
        with path.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")
        path.unlink()

    with ThreadPoolExecutor(8) as pool:
        begun = time.perf_counter()
        list(pool.map(one, range(files)))
        return len(content) * files / (time.perf_counter() - begun)


def lens(run: Run, model: plm.models.model.Model, ids: torch.Tensor) -> float:
    """Return the seconds of TransformerLens's run_with_cache of all pre-activations."""
    try:
        bridge = model.bridge
    except ImportError as error:
        raise Absent(str(error)) from None
    names = [f"blocks.{n}.mlp.hook_pre" for n in range(model.n_layers)]

    @torch.inference_mode()
    def cached() -> Any:
        return bridge.run_with_cache(ids, return_type=None, names_filter=names.__contains__)[1]

    missing = [name for name in names if name not in cached()]
    assert not missing, f"{missing[0]} is not cached"
    return run.seconds(cached)


def beside_lens(run: Run, model: plm.models.model.Model, ids: torch.Tensor, shape: str, memory: float) -> list[Figure]:
    """Put our tokens a second to memory beside TransformerLens's, where it is here."""
    took = run.peer(f"TransformerLens run_with_cache, {shape} shape", lambda: lens(run, model, ids))
    if took is None:
        return []
    peer, what = ids.numel() / took, f"the same beside TransformerLens, {shape} shape"
    return [Figure(what, memory, "tokens/s", peer, "run_with_cache", memory / peer)]


def neighbours(run: Run) -> list[Figure]:
    """Exact neighbours of 10^5 and 10^6 codes among 10^6; a sample is compared with the processor's and the peers'."""
    base = np.random.default_rng(0).integers(0, 256, (run.size(10**6, 200_000, 500), WIDTH // 8), np.uint8)
    base[len(base) // 2 :: 97] = base[0]  # ties
    cases = [(run.size(100_000, 50_000, 40), 3.0)] + ([(10**6, 40.0)] if not (run.quick or run.tiny) else [])
    gpu.nearest_on(run.device, base[:256], base[:8192], K)
    figures = []
    for queries, most in cases:
        run.wait()
        begun = time.perf_counter()
        found = gpu.nearest_on(run.device, base[:queries], base, K)
        took = time.perf_counter() - begun
        sample = np.random.default_rng(1).choice(queries, run.size(200, 100, 20), replace=False)
        note = f"{2 * queries * len(base) * WIDTH / took / 1e12:,.0f} TOP/s; " + _agree(base, sample, found)
        whole = len(base) == 10**6
        what = f"exact neighbours, {queries:,} x {len(base):,}, {WIDTH:,} bits, k = {K}"
        figures.append(Figure(what, took, "s", must=most if whole else None, bound="at most", note=note))
    return figures + [figure for name, make in POPCOUNTS.items() for figure in _beside(run, name, make, base)]


def _beside(
    run: Run, name: str, make: Callable[[Run, np.ndarray], Callable[..., Any]], base: np.ndarray
) -> list[Figure]:
    """Search some of the queries with a peer, if it is here, and with ours; their distances must be equal."""
    asked = base[: run.size(5_000, 2_000, 20)]

    def measured() -> tuple[np.ndarray, float]:
        search = make(run, base)
        search(asked[:8])
        begun = time.perf_counter()
        return search(asked), time.perf_counter() - begun

    there = run.peer(name, measured)
    if there is None:
        return []
    begun = time.perf_counter()
    found = gpu.nearest_on(run.device, asked, base, K)
    ours = time.perf_counter() - begun
    assert np.array_equal(there[0], found.distances), f"distances differ from {name}'s"
    what = f"exact neighbours, {len(asked):,} x {len(base):,}, beside {name}"
    note = "all distances equal; the base is sent anew by ours, and is there before for the peer"
    return [Figure(what, ours, "s", there[1], name, there[1] / ours, note=note)]


def faiss_gpu(run: Run, base: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return faiss's exact search on the device: distances of the K nearest."""
    try:
        import faiss  # noqa: PLC0415
    except ImportError as error:
        raise Absent(str(error)) from None
    if not hasattr(faiss, "GpuIndexBinaryFlat") or not faiss.get_num_gpus():
        raise Absent("this faiss has no GPU")
    config = faiss.GpuIndexBinaryFlatConfig()
    config.device = run.device.index or 0
    index = faiss.GpuIndexBinaryFlat(faiss.StandardGpuResources(), 8 * base.shape[1], config)
    index.add(base)
    return lambda queries: np.asarray(index.search(queries, K)[0])


def cupy_popcount(run: Run, base: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a search by cupy: xor, popcount, sum over words, partition; a few queries at a time."""
    try:
        import cupy  # noqa: PLC0415

        cupy.cuda.Device(run.device.index or 0).use()
        count = cupy.ReductionKernel(
            "uint64 a, uint64 b", "int32 d", "__popcll(a ^ b)", "a + b", "d = a", "0", "hamming"
        )
        words = cupy.asarray(base.view(np.uint64))
    except ImportError as error:
        raise Absent(str(error)) from None
    except Exception as error:  # noqa: BLE001 - it is installed, and finds no card
        raise Absent(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}") from None

    def search(queries: np.ndarray) -> np.ndarray:
        found = []
        for start in range(0, len(queries), 64):
            some = cupy.asarray(queries[start : start + 64].view(np.uint64))
            distances = count(some[:, None], words[None], axis=2)
            found.append(cupy.asnumpy(cupy.sort(cupy.partition(distances, K - 1, axis=1)[:, :K], axis=1)))
        return np.concatenate(found)

    return search


def cpu_kernel(_run: Run, base: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return our own search on the processor, with all of its threads."""
    if importlib.util.find_spec("numba") is None:
        raise Absent("no numba")
    return lambda queries: hamming.nearest(queries, base, K).distances


POPCOUNTS = {"our CPU kernel": cpu_kernel, "faiss GPU": faiss_gpu, "cupy popcount": cupy_popcount}


def _agree(base: np.ndarray, sample: np.ndarray, found: hamming.Neighbours) -> str:
    """Compare some queries with the popcount kernel, or with numpy where numba is absent."""
    if importlib.util.find_spec("numba"):
        expected = hamming.nearest(base[sample], base, K)
        indices, distances, by = expected.indices, expected.distances, "our CPU kernel"
    else:
        words, order = base.view(np.uint64), tie_order(len(base))
        near = np.stack([np.bitwise_count(words ^ words[i]).sum(axis=1) for i in sample]).astype(np.int64)
        keys = np.sort(near * 2**32 + np.argsort(order), axis=1)[:, :K]
        indices, distances, by = order[keys & (2**32 - 1)], keys >> 32, "numpy"
    assert np.array_equal(found.indices[sample], indices), f"indices differ from {by}'s"
    assert np.array_equal(found.distances[sample], distances), f"distances differ from {by}'s"
    return f"every index of {len(sample)} queries is that of {by}"


def adversarial(run: Run) -> list[Figure]:
    """All zero, all one, widths 1, 7, 64 and 3,073: every index is that of the processor, groups left out too."""
    rng, tried = np.random.default_rng(0), 0
    for width in (1, 7, 64, 3073):
        for rate in (0.0, 1.0, 0.5):
            packed = hamming.pack(rng.random((run.size(9000, 9000, 150), width)) < rate)
            groups = rng.integers(-1, 50, (len(packed), 2))
            for more in ({}, {"groups_queries": groups[:100], "groups_base": groups}):
                ours = gpu.nearest_on(run.device, packed[:100], packed, 6, **more)
                expected = hamming.nearest(packed[:100], packed, 6, **more)
                assert np.array_equal(ours.indices, expected.indices), f"width {width}, rate {rate}: indices differ"
                assert np.array_equal(ours.distances, expected.distances), f"width {width}, rate {rate}: distances"
                tried += 1
    return [Figure("adversarial codes equal to popcount", tried, "cases")]


def paths(run: Run) -> list[Figure]:
    """Measure points of a path whose prefix is shared on the device, and lines solved in closed form."""
    from polytope_lm.models.interventions import run_patched  # noqa: PLC0415
    from polytope_lm.models.prefix import share_prefix  # noqa: PLC0415
    from polytope_lm.paths.solve.line import in_layer_crossings  # noqa: PLC0415

    model = random_model(run, "gpt2")
    ids = np.random.default_rng(0).integers(0, WORDS, 64)
    vectors = np.random.default_rng(1).standard_normal((run.size(512, 512, 8), model.d_model)).astype(np.float32)
    where = {"layer": 1, "position": 63}
    prefix = share_prefix(model, torch.from_numpy(ids), **where)
    tap = (model.n_layers - 1, "h")

    def patched(prefix: Any = prefix, some: slice = slice(None)) -> np.ndarray:
        found = run_patched(model, ids, vectors[some], **where, taps=[tap], logits=False, prefix=prefix)
        return found.activations[tap]

    few = slice(0, len(vectors) // 8)
    patched(), patched(None, few)
    rate = len(vectors) / run.seconds(patched)
    whole = len(vectors[few]) / run.seconds(lambda: patched(None, few))
    figures = [
        Figure("points of a path a second, prefix shared", rate, "points/s", whole, "whole sequences", rate / whole)
    ]
    geometry = model.geometry(model.sites[1])
    half = len(vectors) // 2
    ends = vectors[:half], vectors[half : 2 * half]
    found, took = {}, {}
    for name, device in (("here", None), ("there", run.device)):
        found[name] = in_layer_crossings(geometry, *ends, device=device)
        took[name] = run.seconds(lambda device=device: in_layer_crossings(geometry, *ends, device=device), 3)
    lines = {name: half / seconds for name, seconds in took.items()}
    other = int((found["here"].counts != found["there"].counts).sum())
    figures.append(
        Figure("lines solved a second, products on the device", lines["there"], "lines/s", lines["here"],
               "the processor alone", lines["there"] / lines["here"], note=f"{len(found['there'].t):,} crossings")
    )  # fmt: skip
    return [*figures, Figure("lines with another number of crossings there", other, "lines", must=0, bound="at most")]


def measure(run: Run) -> dict[str, Any]:
    """Return each section's name and what measures it."""
    return {
        "machine": lambda: machine(run), "packing": lambda: packing(run), "adversarial": lambda: adversarial(run),
        "neighbours": lambda: neighbours(run), "capture of GPT-2 small's shape": lambda: captures(run, "gpt2"),
        "capture of a 1B Llama's shape": lambda: captures(run, "llama"), "paths": lambda: paths(run),
        "kernels": lambda: kernels(run),
    }  # fmt: skip


def write(out: Path, head: dict[str, Any], sections: dict[str, Any]) -> None:
    """Write the JSON and the table of what is measured so far."""
    (out / "gpu.json").write_text(json.dumps({**head, "sections": sections}, indent=1) + "\n")
    took = f"{head['seconds']:,.0f} s in all (must be at most {LONGEST} s)"
    lines = [f"{head['card']}, torch {head['torch']}, {head['date']}, {took}"]
    lines += ["Absent: " + ("; ".join(f"{name} ({why})" for name, why in head["absent"].items()) or "no peer"), ""]
    lines += ["| what | measured | peer | ratio | must |", "|---|---|---|---|---|"]
    for name, section in sections.items():
        if "failed" in section:
            lines.append(f"| {name} | failed: {section['failed']} | | | |")
        for f in section.get("figures", ()):
            peer = "" if f["peer"] is None else f"{f['peer_name']} {f['peer']:,.4g}"
            must = "" if f["must"] is None else f"{f['bound']} {f['must']:g}: {'met' if f['met'] else 'NOT MET'}"
            ratio = "" if f["ratio"] is None else f"{f['ratio']:.3f}"
            note = f" ({f['note']})" if f["note"] else ""
            lines.append(f"| {f['name']}{note} | {f['value']:,.4g} {f['unit']} | {peer} | {ratio} | {must} |")
    (out / "gpu.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Read the options, measure section by section, write after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-figures"), help="directory for gpu.json and gpu.md")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a little of everything")
    parser.add_argument("--tiny", action="store_true", help="sizes for a test of the script itself")
    parser.add_argument("--only", nargs="*", help="sections whose names contain one of these words")
    parser.add_argument("--scratch", type=Path, help="where stores are written and removed")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(options.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else describe().cpu
    head: dict[str, Any] = {
        "card": card, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"), "absent": {},
        "machine": str(describe()),
    }  # fmt: skip
    print(f"{card}; {head['machine']}", flush=True)
    sections: dict[str, Any] = {}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        run = Run(device, options.tiny, options.quick, Path(scratch), head["absent"])
        for name, section in measure(run).items():
            if options.only and not any(word in name for word in options.only):
                continue
            begun = time.perf_counter()
            try:
                figures = section()
                sections[name] = {"figures": [f.to_dict() for f in figures]}
                for figure in figures:
                    print(figure, flush=True)
            except Exception as error:  # noqa: BLE001 - the other sections go on
                reason = (str(error).splitlines() or [""])[0][:300]
                sections[name] = {"failed": f"{type(error).__name__}: {reason}"}
                print(f"{name}: failed, {type(error).__name__}: {reason}", flush=True)
            sections[name]["seconds"] = round(time.perf_counter() - begun, 1)
            print(f"[{name}: {sections[name]['seconds']} s]", flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            head["seconds"] = round(time.perf_counter() - started, 1)
            write(options.out, head, sections)


if __name__ == "__main__":
    hub.HF_HUB_OFFLINE = True  # an attention kernel that is not here is absent: it is not fetched
    main()
