"""Documents and a model in, codes out: in memory with `encode`, on disk with `capture`, by one and the same path."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from polytope_lm.codes import layout
from polytope_lm.codes.codes import Codes
from polytope_lm.codes.cost import estimate
from polytope_lm.codes.forward import chunks, fill, in_memory, specs
from polytope_lm.codes.plan import Plan, make_plan
from polytope_lm.codes.progress import reporter
from polytope_lm.codes.store import CodeStore
from polytope_lm.codes.writer import TOKEN_COLUMNS, StoreWriter, token_table
from polytope_lm.documents import Document, Documents
from polytope_lm.documents import documents as read_documents
from polytope_lm.errors import PolytopeError
from polytope_lm.models.loading import Model
from polytope_lm.models.sites import Site
from polytope_lm.tokens import Window, Windowed

SHARD_TOKENS = 32_768


def encode(
    model: Model,
    texts: str | Document | Sequence[str | Document],
    *,
    layers: Sequence[int] | int | str = "all",
    kind: str | None = None,
    keep: Sequence[str] = ("h",),
    tokens: str = "all",
    **options: Any,
) -> Codes:
    """Return the codes of some texts, in memory; no file is written.

    Args:
        model: from `load` or `wrap`.
        texts: strings or `Document`s; equal ones are all kept.
        layers: indices, or `all`.
        kind: code kind (`gate`, `up`, `gate+up`), or a declared hook point; by default the site's own.
        keep: activations to keep beside the bits: `h` (which `nearest` by direction needs), `u`, `x`, `up`, `post`.
        tokens: `all`, `word-final`, `every:6,skip:100` or `random:80`.
        **options: `seed`, `bos`, `min_context`, `max_length`, `all_pieces`, `batch_tokens`, `keep_dtype`, as in `capture`.

    Raises:
        PolytopeError: an empty text, an unknown layer, kind or rule.

    """
    given = [texts] if isinstance(texts, (str, Document)) else list(texts)
    prompts = [t if isinstance(t, Document) else Document(id=str(i), text=t) for i, t in enumerate(given)]
    if not prompts:
        raise PolytopeError("no texts: give at least one string")
    for i, prompt in enumerate(prompts):
        if not prompt.text:
            raise PolytopeError(f"text {i} is empty: a token needs at least one character")
    plan = make_plan(model, layers=layers, kind=kind, keep=keep, tokens=tokens, **options)
    windowed = plan.windowing.apply(prompts, 0, model.tokenizer)
    arrays = in_memory(plan.wanted, windowed.n_kept)
    fill(model, windowed.windows, plan.wanted, arrays, batch_tokens=plan.batch_tokens)
    keys = {site.key for site in plan.sites}
    return Codes(
        sites=plan.sites,
        table=_frame(windowed, prompts),
        arrays={n: a for n, a in arrays.items() if n in keys},
        ids=[p.id for p in prompts],
        texts=[p.text for p in prompts],
        kept=plan.keep,
        provenance=plan.provenance(),
        kept_arrays={n: a.astype(np.float32, copy=False) for n, a in arrays.items() if n not in keys},
    )


def capture(
    model: Model,
    documents: Documents | Sequence[Document | str] | str | Path,
    *,
    to: str | Path,
    layers: Sequence[int] | int | str = "all",
    kind: str | None = None,
    keep: Sequence[str] = (),
    tokens: str = "all",
    shard_documents: int | None = None,
    part: tuple[int, int] = (1, 1),
    progress: bool | None = None,
    **options: Any,
) -> CodeStore:
    """Write the codes of every sampled token into a store; run again after an interruption, it goes on.

    Args:
        model: from `load` or `wrap`.
        documents: from `documents(...)`, or a source that `documents` reads.
        to: the store's directory.
        layers: indices, or `all`; the forward pass ends after the last one.
        kind: code kind (`gate`, `up`, `gate+up`), or a declared hook point; by default the site's own.
        keep: activations to keep beside the bits (`h`, `u`, `x`, `up`, `post`): up to 32 times the bits' size.
        tokens: `all`, `word-final`, `every:6,skip:100` or `random:80`.
        shard_documents: documents a shard; by default about 32,768 tokens' worth.
        part: `(i, n)` writes every n-th shard, so that n processes can share one store.
        progress: show cost and progress on stderr; by default on a terminal only.
        **options: `seed`; `bos` (None: as the tokenizer does by itself); `min_context`, tokens that every stored
            token has before it if its document has them; `max_length` of a window; `all_pieces`, a word's labels on
            all its tokens; `batch_tokens`; `keep_dtype`.

    Returns:
        The opened store; it can run the model again for activations that were not kept.

    Raises:
        PolytopeError: a mistake of the user's; whatever was written is kept.

    """
    plan = make_plan(model, layers=layers, kind=kind, keep=keep, tokens=tokens, **options)
    source = documents if isinstance(documents, Documents) else read_documents(documents)
    if (shard_documents is not None and shard_documents < 1) or not 1 <= part[0] <= part[1]:
        raise PolytopeError(f"shard_documents {shard_documents}, part {part}: at least one document a shard, and part i of n")
    cost = estimate(plan, source)
    size = shard_documents or max(1, round(SHARD_TOKENS / max(cost.tokens_per_document, 1)))
    manifest = {"format": layout.FORMAT, **plan.provenance(), "documents": source.describe(), "shard_documents": size}
    path = Path(to)
    with StoreWriter(path, manifest, part) as writer, reporter(cost, show=progress) as report:
        shards = _write(plan, source, writer, size, report)
        writer.finish(shards)
    return CodeStore(path, recompute=partial(_recompute, plan))


def _write(plan: Plan, source: Iterable[Document], writer: StoreWriter, size: int, report: Callable[[int], None]) -> int:
    """Capture every shard that is wanted and missing; return how many shards the documents make."""
    number = -1
    for number, chunk in enumerate(chunks(source, size)):  # noqa: B007
        if not writer.wants(number):
            writer.check(number, chunk)
            report(sum(len(d.text) for d in chunk))
            continue
        windowed = plan.windowing.apply(chunk, number * size, plan.model.tokenizer)
        spec = {s.name: (s.columns, s.dtype) for s in plan.wanted}
        scale = sum(len(d.text) for d in chunk) / max(windowed.n_tokens, 1)
        with writer.shard(number, windowed.n_kept, spec) as arrays:
            done = partial(_scaled, report, scale)
            fill(plan.model, windowed.windows, plan.wanted, arrays, batch_tokens=plan.batch_tokens, done=done)
        writer.commit(number, windowed.n_kept, _table(windowed), chunk, number * size)
    return number + 1


def _scaled(report: Callable[[int], None], scale: float, tokens: int) -> None:
    report(round(tokens * scale))


def _columns(windows: Sequence[Window]) -> dict[str, np.ndarray]:
    if not windows:
        return {name: np.empty(0, np.int64) for name in TOKEN_COLUMNS}
    document = np.concatenate([np.full(len(w.keep), w.document) for w in windows])
    rest = {name: np.concatenate([getattr(w, name) for w in windows]) for name in TOKEN_COLUMNS[1:]}
    return {"document": document, **rest}


def _labels(windows: Sequence[Window]) -> dict[str, list[str | None]]:
    names = sorted({name for w in windows for name in w.labels})
    return {n: list(itertools.chain.from_iterable(w.labels.get(n) or [None] * len(w.keep) for w in windows)) for n in names}


def _table(windowed: Windowed) -> pa.Table:
    return token_table(_columns(windowed.windows), _labels(windowed.windows))


def _frame(windowed: Windowed, documents: Sequence[Document]) -> pd.DataFrame:
    """Return the token table of codes in memory."""
    frame = pd.DataFrame(_columns(windowed.windows)).astype(np.int64)
    rows = zip(frame["document"], frame["start"], frame["end"], strict=True)
    frame["token"] = [documents[d].text[s:e] for d, s, e in rows]
    labels = _labels(windowed.windows)
    for name in sorted({n for d in documents for n in d.labels} - set(labels)):
        labels[name] = [documents[d].labels.get(name) for d in frame["document"]]
    return frame.assign(**labels)


def _recompute(plan: Plan, store: CodeStore, name: str, site: Site) -> Float[np.ndarray, "T W"]:
    """Run the model again over a store's documents, for activations that were not kept."""
    wanted = tuple(s for s in specs(plan.model, (site,), (name,), "float32") if not s.bits)
    table, size = store.documents, int(store.manifest["shard_documents"])
    parts = []
    for start in range(0, len(table), size):
        chunk = [Document(id=i, text=t) for i, t in zip(table["id"][start : start + size], table["text"][start : start + size], strict=True)]
        windowed = plan.windowing.apply(chunk, int(table["index"][start]), plan.model.tokenizer)
        arrays = in_memory(wanted, windowed.n_kept)
        fill(plan.model, windowed.windows, wanted, arrays, batch_tokens=plan.batch_tokens)
        parts.append(arrays[wanted[0].name])
    return np.concatenate(parts)
