"""Documents and a model in, codes out: in memory with `encode`, on disk with `capture`, by one path."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.codes import Codes
from polytope_lm.codes.forward import chunks, fill, in_memory, runs_at_once
from polytope_lm.codes.plan import Plan, check_sampled, estimate, make_plan, warn_sampled
from polytope_lm.codes.reread import at_hand, windowing
from polytope_lm.codes.store import layout, tables
from polytope_lm.codes.store.reader import CodeStore
from polytope_lm.codes.store.writer import OpenShard, StoreWriter
from polytope_lm.documents import Document
from polytope_lm.documents import documents as read_documents
from polytope_lm.documents.source import given
from polytope_lm.errors import PolytopeError, brief, forwards, public, visible
from polytope_lm.files import expand
from polytope_lm.models.model import weights_digest
from polytope_lm.progress import progress as showing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    import pandas as pd
    import pyarrow as pa

    from polytope_lm.documents.source import Source
    from polytope_lm.models.model import Model
    from polytope_lm.tokens.windowing import Window, Windowed

    Numbered = Iterable[tuple[int, Sequence[Document]]]
    """Shards to be: their numbers, their documents."""

SHARD_TOKENS = 32_768


@public
@forwards(make_plan)
def encode(
    model: Model,
    texts: Source,
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
        texts: a string, a `Document`, or what `documents` reads from memory (a list, a DataFrame, a Series, a
            data set); equal ones are all kept.
        layers: indices, or `all`.
        kind: code kind (`gate`, `up`, `gate+up`), or a declared hook point; by default the site's own.
        keep: activations to keep beside the bits: `h` (which `nearest` by direction needs), `u`, `x`, `up`,
            `post`.
        tokens: `all`, `word-final`, `every:6,skip:100` or `random:80`.
        **options: `seed`, `bos`, `min_context`, `max_length`, `all_pieces`, `batch_tokens`, `keep_dtype`, as
            in `capture`.

    Raises:
        PolytopeError: an empty text, an unknown layer, kind or rule.

    Examples:
        >>> import polytope_lm as plm
        >>> codes = plm.encode(plm.load("tiny-gpt2"), ["The loop ends", "The loop stops"], layers=[1, 2])
        >>> codes[0, -1, 2] ^ codes[1, -1, 2]
        60 of 512 bits differ

    """
    prompts = given(texts)
    if not prompts:
        raise PolytopeError("no texts: give at least one string")
    for i, prompt in enumerate(prompts):
        check_text(f"text {i}", prompt.text)
    plan = make_plan(model, layers=layers, kind=kind, keep=keep, tokens=tokens, **options)
    windowed = plan.windowing.apply(prompts, 0, model.tokenizer)
    check_sampled(plan, windowed.n_kept, windowed.n_without, len(prompts))
    warn_sampled(plan, windowed.n_without, len(prompts))
    arrays = in_memory(plan.wanted, windowed.n_kept)
    fits = fill(model, windowed.windows, plan.wanted, arrays, batch_tokens=plan.batch_tokens)
    return in_codes(
        replace(plan, batch_tokens=fits),
        arrays,
        _frame(windowed, prompts),
        [p.id for p in prompts],
        [p.text for p in prompts],
    )


def in_codes(
    plan: Plan, arrays: Mapping[str, np.ndarray], table: pd.DataFrame, ids: Sequence[str], texts: Sequence[str]
) -> Codes:
    """Return filled arrays as codes in memory."""
    bits = {site.key: arrays[site.key] for site in plan.sites}
    kept = {name: a.astype(np.float32, copy=False) for name, a in arrays.items() if name not in bits}
    return Codes(plan.sites, table, bits, ids, texts, plan.keep, plan.provenance(), kept, plan.model)


def unread(plan: Plan, documents: Sequence[Document]) -> Codes:
    """Return codes of documents that are cut into tokens but not read yet: tables and rules, no bits."""
    windowed = plan.windowing.apply(documents, 0, plan.model.tokenizer)
    check_sampled(plan, windowed.n_kept, windowed.n_without, len(documents))
    warn_sampled(plan, windowed.n_without, len(documents))
    ids, texts = [d.id for d in documents], [d.text for d in documents]
    return Codes(plan.sites, _frame(windowed, documents), {}, ids, texts, (), plan.provenance(), model=plan.model)


def check_text(name: str, text: Any) -> None:
    """Refuse what no tokenizer reads."""
    if not isinstance(text, str) or not text:
        shown = "empty" if text == "" else f"a {type(text).__name__}"
        raise PolytopeError(f"{name} is {shown}: give strings of at least one character")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise PolytopeError(f"{name} has a lone surrogate, which is no character: replace it")


@public
@forwards(make_plan)
def capture(  # noqa: PLR0913 - settings, by name
    model: Model,
    documents: Source,
    *,
    to: str | Path,
    layers: Sequence[int] | int | str = "all",
    kind: str | None = None,
    keep: Sequence[str] = (),
    tokens: str = "all",
    shard_documents: int | None = None,
    part: tuple[int, int] = (1, 1),
    engine: str = "here",
    workers: int | None = None,
    gpus_per_worker: float = 0,
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
        keep: activations to keep beside the bits (`h`, `u`, `x`, `up`, `post`): up to 32 times the bits'
            size.
        tokens: `all`, `word-final`, `every:6,skip:100` or `random:80`.
        shard_documents: documents a shard; by default about 32,768 tokens' worth.
        part: `(i, n)` writes every n-th shard, so that n processes can share one store.
        engine: `ray` spreads the shards over the workers of a Ray session (`RAY_ADDRESS`, or one started here);
            the store is the same, byte for byte, as one written here with as many threads as a worker has.
        workers: how many; by default one a shard, as far as processors (or graphics cards) reach.
        gpus_per_worker: graphics cards of each; 0: workers run on processors.
        progress: show cost and progress on stderr: a bar on a terminal, elsewhere a line a minute. By default
            the cost is shown on a terminal only; False shows nothing.
        **options: `seed`; `bos` (None: as the tokenizer or bridge does); `min_context`, tokens that every
            stored token has before it if its document has them; `max_length` of a window; `all_pieces`, a
            word's labels on all its tokens; `batch_tokens`; `keep_dtype`.

    Returns:
        The opened store; it can run the model again for activations that were not kept.

    Raises:
        PolytopeError: a mistake of the user's; whatever was written is kept.

    """
    settings = {"layers": layers, "kind": kind, "keep": keep, "tokens": tokens, **options}
    plan = make_plan(model, **settings)
    source = read_documents(documents)
    if engine not in {"here", "ray"}:
        raise PolytopeError(f"engine {brief(engine)}: here or ray")
    if engine == "here" and (workers is not None or gpus_per_worker):
        raise PolytopeError(f"workers={workers}, gpus_per_worker={gpus_per_worker:g}: they need engine='ray'")
    if engine == "ray" and part != (1, 1):
        raise PolytopeError(f"part {part} and engine 'ray': Ray's workers take the parts; leave one out")
    if (shard_documents is not None and shard_documents < 1) or not 1 <= part[0] <= part[1]:
        raise PolytopeError(
            f"shard_documents {shard_documents}, part {part}: at least one document a shard, and part (i, n) with i "
            "from 1 to n"
        )
    tell = sys.stderr.isatty() if progress is None else progress
    # The time is this processor's: nothing is known here of the cards that workers will have.
    cost = estimate(plan, source, timed=tell and not gpus_per_worker)
    if tell:
        alone = " in one process" if engine == "ray" and cost.minutes is not None else ""
        print(f"capture: {visible(str(cost))}{alone}", file=sys.stderr)
    size = shard_documents or max(1, round(SHARD_TOKENS / max(cost.tokens_per_document, 1)))
    about: dict[str, Any] = {"documents": source.describe(), "shard_documents": size}
    if cost.documents is not None:  # a stream of unknown length is not read twice
        about["documents_sha256"] = {"texts": source.sha256, **cost.source}
    path = expand(to, "to") if engine == "here" else expand(to, "to").absolute()  # workers start in other directories
    job = _Capture(settings, path, about, size, cost.characters)
    with showing("capture", show=progress is not False) as told:
        if engine == "ray":
            from polytope_lm.codes.distributed import Job, Workers, spread  # noqa: PLC0415 - an extra's

            shards = None if cost.documents is None else -(-cost.documents // size)
            spread(
                model, Job(job.write, source, path, shards, size, cost.characters), Workers(workers, gpus_per_worker),
                told,
            )  # fmt: skip
        else:
            job.write(model, part, told, enumerate(chunks(source, size)))
    store = CodeStore(path, model=model)
    if store.complete:
        rows, read = store.counts()
        check_sampled(plan, rows, read, read)
    return store


@dataclass(frozen=True)
class _Capture:
    """A capture's settings: what is written, whichever process writes it."""

    settings: Mapping[str, Any]
    path: Path
    about: Mapping[str, Any]
    size: int
    characters: int | None

    def write(
        self, model: Model, part: tuple[int, int], told: Callable[[int, int | None, str], None], numbered: Numbered
    ) -> None:
        """Write every shard of a part that is missing."""
        plan = make_plan(model, **self.settings)
        manifest = {"format": layout.FORMAT, **plan.provenance(), **self.about}
        with StoreWriter(self.path, manifest, part) as writer:
            writer.finish(_write(plan, numbered, writer, self.size, _Characters(told, self.characters)))


@dataclass
class _Characters:
    """Counts the characters that are captured; those of shards that were there before are not to be done."""

    told: Callable[[int, int | None, str], None]
    total: int | None
    done: float = 0

    def batch_done(self, shard: OpenShard, scale: float, number: int, batch: int, tokens: int) -> None:
        shard.batches = max(shard.batches, batch + 1)
        self.done += tokens * scale
        self.told(round(self.done), self.total, f"shard {number}")

    def there(self, characters: int) -> None:
        self.total = None if self.total is None else self.total - characters


@dataclass(frozen=True)
class _Prepared:
    """A shard's documents, cut into windows."""

    number: int
    chunk: Sequence[Document]
    windowed: Windowed
    table: pa.Table

    @property
    def scale(self) -> float:
        """Characters a token."""
        return sum(len(d.text) for d in self.chunk) / max(self.windowed.n_tokens, 1)


def _write(plan: Plan, numbered: Numbered, writer: StoreWriter, size: int, progress: _Characters) -> int:
    """Capture every shard that is wanted and missing; return how many shards the documents make.

    While an accelerator fills one shard, the next is cut into windows and the last is hashed and synced.
    """
    made, fits = [0, 0, 0], plan.batch_tokens  # shards; documents read, and those without a token
    spec = {s.name: (s.columns, s.dtype) for s in plan.wanted}
    upcoming = _prepared(plan, numbered, writer, size, progress, made)
    at_once = runs_at_once(plan.model)
    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(1) as behind:
        last: Future[None] | None = None
        following = None if at_once else ahead.submit(next, upcoming, None)
        while (one := following.result() if following else next(upcoming, None)) is not None:
            following = ahead.submit(next, upcoming, None) if following else None
            windowed = one.windowed
            with writer.shard(one.number, windowed.n_kept, spec, one.chunk) as shard:
                fits = fill(
                    plan.model, windowed.windows, plan.wanted, shard.arrays, first=shard.batches, fits=fits,
                    batch_tokens=plan.batch_tokens, done=partial(progress.batch_done, shard, one.scale, one.number),
                )  # fmt: skip
            smaller = fits if fits < plan.batch_tokens else None
            commit = partial(
                writer.commit, one.number, windowed.n_kept, one.table, one.chunk, one.number * size,
                batch_tokens=smaller,
            )  # fmt: skip
            if at_once:
                commit()
                continue
            if last is not None:
                last.result()
            last = behind.submit(commit)
        if last is not None:
            last.result()
    warn_sampled(plan, made[2], made[1])
    return made[0]


def _prepared(
    plan: Plan, numbered: Numbered, writer: StoreWriter, size: int, progress: _Characters, made: list[int]
) -> Iterator[_Prepared]:
    """Yield every shard that is wanted and missing; count in `made` shards, documents and those without a token."""
    for number, chunk in numbered:
        made[0] = number + bool(chunk)  # where shards are dealt out, the end is: how many there are, no documents
        if not chunk:
            return
        if not writer.wants(number):
            writer.check(number, chunk)
            progress.there(sum(len(d.text) for d in chunk))
            continue
        windowed = plan.windowing.apply(chunk, number * size, plan.model.tokenizer)
        made[1] += len(chunk)
        made[2] += windowed.n_without
        tables.check_label_names(name for document in chunk for name in document.labels)
        table = tables.token_table(_columns(windowed.windows), _labels(windowed.windows))
        yield _Prepared(number, chunk, windowed, table)


def _columns(windows: Sequence[Window]) -> dict[str, np.ndarray]:
    if not windows:
        return {name: np.empty(0, np.int64) for name in tables.NUMBERS}
    document = np.concatenate([np.full(len(w.keep), w.document) for w in windows])
    rest = {name: np.concatenate([getattr(w, name) for w in windows]) for name in tables.NUMBERS[1:]}
    return {"document": document, **rest}


def _labels(windows: Sequence[Window]) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {name: [] for name in sorted({name for w in windows for name in w.labels})}
    for window in windows:
        for name in found:
            found[name] += window.labels.get(name) or [None] * len(window.keep)
    return found


def _frame(windowed: Windowed, documents: Sequence[Document]) -> pd.DataFrame:
    """Return the token table of codes in memory."""
    import pandas as pd  # noqa: PLC0415 - memory: a capture needs no table

    frame = pd.DataFrame(_columns(windowed.windows)).astype(np.int64)
    rows = zip(frame["document"], frame["start"], frame["end"], strict=True)
    frame["token"] = pd.Series([documents[d].text[s:e] for d, s, e in rows], dtype="str")
    labels = _labels(windowed.windows)
    for name in sorted({n for d in documents for n in d.labels} - set(labels)):
        labels[name] = [documents[d].labels.get(name) for d in frame["document"]]
    tables.check_label_names(labels)
    return frame.assign(**{name: pd.Series(values, dtype="str") for name, values in labels.items()})


@public
def with_model(store: CodeStore, model: Model) -> CodeStore:
    """Return a store that runs a model again for activations that were not kept, as `capture` returns it.

    Args:
        store: an opened store.
        model: the one that wrote it.

    Raises:
        PolytopeError: another model, revision, dtype, or other special tokens.

    """
    was = store.provenance
    model.check_made(f"{store.path} was written", was)
    windowing(store, at_hand(store, model))  # the same special tokens
    declared = {s.key: weights_digest(w, b) for s, w, b in model.custom if s in store.sites}
    for name, now in (("dtype", model.provenance["dtype"]), ("declared", declared)):
        if now != was[name]:
            raise PolytopeError(
                f"{store.path} was written with {name} {was[name]}; {model.name} has {now}: load it as it was"
            )
    return CodeStore(store.path, model=model)
