"""A store on disk: its codes, memory-mapped, with the interface of those in memory; checks of its files."""

from __future__ import annotations

import html
import logging
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from polytope_lm.codes.codes import TokenCodes
from polytope_lm.codes.store import layout, tables
from polytope_lm.errors import PolytopeError, public
from polytope_lm.files import expand
from polytope_lm.models.sites import width_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from jaxtyping import Float, Int64

    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site


_log = logging.getLogger(__name__)
_SHOWN = 8
MOST_NAMED = 1000
"""Missing shards that are named one by one."""
SMALL = 2**16
"""Files of so many bytes have their sums checked when a store is opened."""
UNCHECKABLE = (
    "a store of format 1: its shards do not name their manifest, so a shard of another store of the same "
    "documents can't be told from its own; capture anew to be sure"
)


def problems(path: Path) -> Iterator[str]:
    """Check every file of a store; yield one line for each thing that is wrong.

    Found are a byte that differs in any file, a file or shard that is missing, truncated, grown or of another
    store, anything that is not the store's, links, and a capture that did not finish.
    """
    yield from _strangers(path, {layout.MANIFEST, layout.MANIFEST_SUM, layout.COMPLETE, layout.SHARDS})
    try:
        manifest = layout.read_manifest(path)
        there = layout.committed(path)
    except PolytopeError as error:
        yield str(error)
        return
    files, records = layout.shard_files(manifest), {}
    for number in there:
        shard = layout.shard_path(path, number)
        yield from _strangers(shard, {*files, layout.SHARD})
        try:
            records[number] = layout.read_record(shard, manifest)
        except PolytopeError as error:
            yield str(error)
            continue
        found = (layout.check_file(shard, name, records[number]) for name in files)
        yield from (problem for problem in found if problem)
        if records[number].first_document != number * manifest["shard_documents"]:
            yield f"{shard}: holds the documents of another shard: delete it and run the capture again"
    if (path / layout.SHARDS).is_dir():
        yield from _strangers(path / layout.SHARDS, {layout.shard_name(n) for n in there})
    yield from _completion_problems(path, there, records)


def _completion_problems(path: Path, there: list[int], records: dict[int, layout.Record]) -> Iterator[str]:
    """Look for missing shards, and compare the note about the whole with its shards."""
    file, total = path / layout.COMPLETE, None
    try:
        total = layout.completed_shards(path)
        if total is None:
            yield f"{path}: not finished: run the capture again"
            return
    except PolytopeError as error:
        yield str(error)
    missing, named = layout.missing_shards(there, total or 0, MOST_NAMED)
    for number in named:
        yield f"{layout.shard_path(path, number)}: missing shard: run the capture again"
    if missing > len(named):
        yield f"{path}: {missing - len(named):,} more missing shards: is {file} right?"
    whole = total is not None and not missing and len(records) == len(there)
    if whole and layout.read_bytes(file) != layout.completion([records[n] for n in there]):
        yield f"{file}: does not match the shards: delete it and run the capture again"


def _strangers(directory: Path, expected: set[str]) -> Iterator[str]:
    """Name what does not belong into a directory, and links in the place of the store's own files."""
    for path in sorted(directory.iterdir()):
        if path.is_symlink():
            yield f"{path}: a link: the store has only files of its own, remove it"
        elif layout.LOCK_NAME.fullmatch(path.name):
            if path.stat().st_size:
                yield f"{path}: not empty, as a lock of the store is: remove it"
        elif layout.LEFTOVER_NAME.fullmatch(path.name):
            yield f"{path}: left over from an interrupted capture; run the capture again"
        elif path.name not in expected:
            yield f"{path}: foreign: it is not the store's, move it away"


class CodeStore(TokenCodes):
    """A store on disk. Open it with `open_store`; `capture` writes it and returns it opened.

    What is committed when it is opened is what it holds, also if a capture goes on writing.

    Attributes:
        path: its directory.
        manifest: what determined its bytes.
        missing: numbers of the shards that are not there though a later one is, or though the capture had
            finished; the first thousand of them.
        n_missing: how many these are.
        model: what captured it, if it is at hand: it is run again for activations that were not kept.

    """

    def __init__(self, path: Path, *, model: Model | None = None) -> None:
        self.path = path
        self.model = model
        self.manifest = layout.read_manifest(path)
        self.sites = layout.manifest_sites(self.manifest)
        self.kept = tuple(self.manifest["keep"])
        numbers = layout.committed(path)
        self._records = {n: layout.read_record(layout.shard_path(path, n), self.manifest) for n in numbers}
        self._finished = _finished(path)
        self.n_missing, named = layout.missing_shards(numbers, self._finished or 0, MOST_NAMED)
        self.missing = tuple(named)
        gap = self._gap()
        self.provenance: Mapping[str, Any] = {**self.manifest, "incomplete": gap} if gap else self.manifest
        self._recomputed: dict[tuple[str, str], Float[np.ndarray, "T W"]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Send another process where the store is, not what is in it."""
        return CodeStore, (self.path.absolute(),)

    def check(self) -> None:
        """Compare the sizes of all files, and the sums of small ones, with what was written.

        Raises:
            PolytopeError: a file that is missing, of another size, or damaged.

        """
        names = layout.shard_files(self.manifest)
        for number, record in self._records.items():
            for name in names:
                shard = layout.shard_path(self.path, number)
                if problem := layout.check_file(shard, name, record, sums_up_to=SMALL):
                    raise PolytopeError(problem)

    @property
    def command(self) -> str:
        """The call that opens it again, with its model where that is at hand."""
        opened = f"plm.open_store({str(self.path)!r})"
        loaded = "" if self.model is None else self.model.command
        return f"plm.with_model({opened}, {loaded})" if loaded else opened

    @property
    def complete(self) -> bool:
        """Whether the capture ran to its end."""
        return layout.completed_shards(self.path) == len(self._records)

    @cached_property
    def shards(self) -> pd.DataFrame:
        """One row a shard: number, rows, documents, bytes."""
        import pandas as pd  # noqa: PLC0415 - memory: a capture needs no table

        found = [(n, r.rows, r.documents, sum(f.bytes for f in r.files.values())) for n, r in self._records.items()]
        return pd.DataFrame(found, columns=["shard", "rows", "documents", "bytes"])

    @cached_property
    def documents(self) -> pd.DataFrame:
        """One row a document: `index` in the input, `id`, `text` and its labels."""
        import pandas as pd  # noqa: PLC0415 - memory: a capture needs no table

        table = self._table(layout.DOCUMENTS)
        names = [name.removeprefix(tables.LABEL) for name in table.schema.names]
        return pd.DataFrame(table.rename_columns(names).to_pandas())

    @cached_property
    def ids(self) -> Sequence[str]:  # type: ignore[override]
        """The documents' identifiers."""
        return list(self.documents["id"])

    @cached_property
    def texts(self) -> Sequence[str]:  # type: ignore[override]
        """The documents' texts, by the document's index."""
        return list(self.documents["text"])

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """The token table: see `TokenCodes`. Document labels are joined to their tokens."""
        import pandas as pd  # noqa: PLC0415 - memory: a capture needs no table

        table = self._table(layout.TOKENS)
        columns = {name: table[name].to_numpy().astype(np.int64) for name in tables.NUMBERS}
        columns["document"] = np.searchsorted(self.documents["index"].to_numpy(), columns["document"])
        frame = pd.DataFrame(columns)
        rows = zip(frame["document"], frame["start"], frame["end"], strict=True)
        frame["token"] = pd.Series([self.texts[d][s:e] for d, s, e in rows], dtype="str")
        own = [name for name in table.schema.names if name.startswith(tables.LABEL)]
        labels = {name.removeprefix(tables.LABEL): table[name].to_pandas() for name in own}
        for name in sorted(set(self.documents.columns[3:]) - set(labels)):
            labels[name] = self.documents[name].to_numpy()[frame["document"]]
        return frame.assign(**{name: pd.Series(values, dtype="str") for name, values in labels.items()})

    def _gap(self) -> str:
        """Say what a store that is not whole lacks; nothing for a whole one."""
        if self.n_missing:
            return f"{self.n_missing:,} shard{'s' if self.n_missing != 1 else ''} missing"
        return "" if self._finished is not None else "the capture did not finish"

    def _check_readable(self) -> None:
        """Refuse to read a finished store that lost shards: rows and documents would move up unnoticed."""
        if self._finished is None or not self.missing:
            return
        names = ", ".join(layout.shard_name(n) for n in self.missing[:_SHOWN])
        more = ", ..." if self.n_missing > _SHOWN else ""
        raise PolytopeError(
            f"{self.path}: {self._gap()} of a finished store ({names}{more}): run the capture again, it "
            f"makes what is missing"
        )

    def counts(self) -> tuple[int, int]:
        """Return the numbers of tokens and documents, from the shards' records."""
        records = self._records.values()
        return sum(r.rows for r in records), sum(r.documents for r in records)

    def __repr__(self) -> str:
        gap = self._gap()
        return super().__repr__() + (f"; incomplete: {gap}" if gap else "")

    def _repr_html_(self) -> str:
        lost = self._finished is not None and self.missing
        return f"<p>{html.escape(repr(self))}</p>" if lost else super()._repr_html_()

    def verify(self) -> list[str]:
        """Check every file; return one line for each thing that is wrong, so an empty list is good news.

        What a store of format 1 can't be checked for is said through `logging`.
        """
        if self.manifest["format"] == 1:
            _log.warning("%s: %s", self.path, UNCHECKABLE)
        return list(problems(self.path))

    def push(self, repo: str, *, private: bool = True, token: str | None = None) -> str:
        """Push the store to the Hugging Face hub, as one commit; `plm.open_store` opens it from there.

        The pulled store equals the pushed one byte for byte. Its texts are pushed with it.

        Args:
            repo: `OWNER/NAME` of a data set's repository; made if it is not there.
            private: make it private, where it is made.
            token: an access token; by default the one that `hf auth login` keeps.

        Returns:
            The address, `hf://datasets/OWNER/NAME@COMMIT`.

        Raises:
            PolytopeError: a store that is not sound or not finished, no permission, a hub that can't be reached:
                nothing is then pushed.

        """
        from polytope_lm.codes.store.remote import push  # noqa: PLC0415 - a local store needs no hub

        if found := self.verify():
            raise PolytopeError(f"{self.path}: not pushed, as it is not sound: {found[0]}")
        message = f"Codes of {self.manifest.get('model')}"
        return push(self.path, repo, private=private, token=token, message=message)

    def can_give(self, name: str) -> bool:
        """Whether activations were kept, or the model that captured them is at hand to run again."""
        return name in self.kept or self.model is not None

    def blocks(self, site: Site, name: str | None = None) -> Iterator[np.ndarray]:
        """Yield one array shard by shard, mapped from disk."""
        if name is not None and name not in self.kept:
            yield self._again(name, site)
            return
        self._check_readable()
        for number in self._records:
            yield self._block(number, site, name)

    def rows(self, site: Site, rows: Int64[np.ndarray, " R"], name: str | None = None) -> np.ndarray:
        """Return some rows of one array, opening only the shards that they are in."""
        if name is not None and name not in self.kept:
            return np.asarray(self._again(name, site)[rows])
        self._check_readable()
        ends = np.cumsum([record.rows for record in self._records.values()], dtype=np.int64)
        shard = np.searchsorted(ends, rows, side="right")
        out = np.empty((len(rows), width_of(site, name)), np.uint8 if name is None else np.float32)
        order, numbers = np.argsort(shard, kind="stable"), list(self._records)
        for here in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1) if len(rows) else ():
            number = numbers[shard[here[0]]]
            first = ends[shard[here[0]]] - self._records[number].rows
            out[here] = self._block(number, site, name)[rows[here] - first]
        return out

    def _block(self, number: int, site: Site, name: str | None) -> np.ndarray:
        """Map one shard's array."""
        dtype = np.dtype("uint8" if name is None else self.manifest["keep_dtype"])
        file = layout.shard_path(self.path, number) / f"{site.key}{'' if name is None else '.' + name}.npy"
        return layout.mapped(file, (self._records[number].rows, width_of(site, name)), dtype)

    def _again(self, name: str, site: Site) -> Float[np.ndarray, "T W"]:
        """Run the model again for what was not kept, and remember the last such array."""
        from polytope_lm.codes.reread import activations  # noqa: PLC0415 - torch: a reader needs none

        if self.model is None:
            raise self._not_kept(name, site)
        if (name, site.key) not in self._recomputed:
            self._recomputed = {(name, site.key): activations(self, name, site, self.model)}
        return self._recomputed[name, site.key]

    def _table(self, name: str) -> pa.Table:
        """Return one table over all shards."""
        self._check_readable()
        parts = [tables.read_parquet(layout.shard_path(self.path, n), name, r) for n, r in self._records.items()]
        return pa.concat_tables([tables.empty(name), *parts], promote_options="default")


def _finished(path: Path) -> int | None:
    """Return how many shards a finished store had; a damaged note is `verify`'s to tell."""
    try:
        return layout.completed_shards(path)
    except PolytopeError:
        return None


def located(path: str | Path) -> Path:
    """Return a store's directory; one on the hub is fetched first."""
    if isinstance(path, str | os.PathLike) and os.fspath(path).startswith("hf:/"):
        from polytope_lm.codes.store.remote import pulled  # noqa: PLC0415 - a local store needs no hub

        return pulled(path)
    return expand(path)


@public
def open_store(path: str | Path) -> CodeStore:
    """Open a store for reading; sizes of all files and sums of small ones are checked.

    Said through `logging`: that a store is not whole, or what can't be checked of one of format 1. The sums
    of large arrays are checked by `verify()`, those of the tables when they are first read.

    Args:
        path: its directory; or on the Hugging Face hub `hf://datasets/OWNER/NAME`, `…/NAME@REVISION`, which is
            fetched into `$POLYTOPE_LM_CACHE` first, byte for byte.

    Raises:
        PolytopeError: no store there, damaged or missing files, or another format version; a hub that can't be
            reached.

    Examples:
        >>> import tempfile
        >>> import polytope_lm as plm
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = plm.capture(plm.load("tiny-gpt2"), ["The loop ends"], to=f"{folder}/codes", layers=[2])
        ...     list(plm.open_store(f"{folder}/codes").tokens.token)
        ['The', ' lo', 'op', ' en', 'ds']

    """
    store = CodeStore(located(path))
    store.check()
    if store.manifest["format"] == 1:
        _log.warning("%s: %s", store.path, UNCHECKABLE)
    if "incomplete" in store.provenance:
        _log.warning("%s is incomplete: %s; run the capture again", store.path, store.provenance["incomplete"])
    return store
