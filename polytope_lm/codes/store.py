"""CodeStore: codes on disk, memory-mapped, with the interface of codes in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, UInt8

from polytope_lm.codes import layout
from polytope_lm.codes.codes import TOKEN_COLUMNS, TokenCodes
from polytope_lm.errors import PolytopeError
from polytope_lm.models.sites import Site

if TYPE_CHECKING:
    import datasets

Recompute = Callable[["CodeStore", str, Site], Float[np.ndarray, "T W"]]


class CodeStore(TokenCodes):
    """A store on disk. Open it with `open_store`; `capture` writes it and returns it opened.

    Attributes:
        path: its directory.
        manifest: what determined its bytes.

    """

    def __init__(self, path: Path, *, recompute: Recompute | None = None) -> None:
        self.path = path
        self.manifest = layout.read_manifest(path)
        self.sites = tuple(Site.from_dict(data) for data in self.manifest["sites"])
        self.kept = tuple(self.manifest["keep"])
        self.provenance: Mapping[str, Any] = self.manifest
        self._numbers = layout.committed(path)
        self._recompute = recompute
        self._recomputed: dict[tuple[str, str], Float[np.ndarray, "T W"]] = {}

    @property
    def complete(self) -> bool:
        """Whether the capture ran to its end."""
        return (self.path / layout.COMPLETE).is_file()

    @cached_property
    def shards(self) -> pd.DataFrame:
        """One row a shard: number, rows, documents, bytes."""
        records = [layout.read_json(self._shard(n) / layout.SHARD) for n in self._numbers]
        sizes = [sum(f["bytes"] for f in r["files"].values()) for r in records]
        columns = {"shard": self._numbers, "rows": [r["rows"] for r in records], "documents": [r["documents"] for r in records]}
        return pd.DataFrame(columns | {"bytes": sizes})

    @cached_property
    def documents(self) -> pd.DataFrame:
        """One row a document: `index`, `id`, `text` and its labels."""
        return self._table(layout.DOCUMENTS).to_pandas()

    @property
    def ids(self) -> Sequence[str]:  # type: ignore[override]
        """The documents' identifiers."""
        return self.documents["id"].tolist()

    @cached_property
    def texts(self) -> Sequence[str]:  # type: ignore[override]
        """The documents' texts, by the document's index."""
        return self.documents["text"].tolist()

    @cached_property
    def tokens(self) -> pd.DataFrame:  # type: ignore[override]
        """The token table: see `TokenCodes`. Document labels are joined to their tokens."""
        table = self._table(layout.TOKENS)
        frame = table.rename_columns([name.removeprefix("label.") for name in table.schema.names]).to_pandas()
        frame[list(TOKEN_COLUMNS[:-1])] = frame[list(TOKEN_COLUMNS[:-1])].astype(np.int64)
        place = pd.Series(np.arange(len(self.documents)), index=self.documents["index"])
        frame["document"] = place.loc[frame["document"]].to_numpy(np.int64)
        rows = zip(frame["document"], frame["start"], frame["end"], strict=True)
        frame.insert(5, "token", [self.texts[d][s:e] for d, s, e in rows])
        for name in self.documents.columns[3:]:
            if (label := name.removeprefix("label.")) not in frame:
                frame[label] = self.documents[name].to_numpy()[frame["document"]]
        return frame

    def verify(self) -> list[str]:
        """Check every file; return one line for each thing that is wrong, so an empty list is good news."""
        names = [s.key for s in self.sites] + [f"{s.key}.{name}" for s in self.sites for name in self.kept]
        return layout.problems(self.path, names)

    def can_give(self, name: str) -> bool:
        """Whether activations were kept, or the model that captured them is at hand to run again."""
        return name in self.kept or self._recompute is not None

    def to_dataset(self) -> datasets.Dataset:
        """Return a `datasets.Dataset`: the token table and one list of packed bytes a site."""
        from datasets import Dataset  # noqa: PLC0415

        table = pa.Table.from_pandas(self.tokens, preserve_index=False)
        for site in self.sites:
            packed = self._packed(site)
            flat = pa.array(packed.reshape(-1))
            table = table.append_column(site.key, pa.FixedSizeListArray.from_arrays(flat, site.n_bytes))
        return Dataset(table)

    def _packed(self, site: Site) -> UInt8[np.ndarray, "T B"]:
        return self._array(site.key, site.n_bytes, np.dtype(np.uint8))

    def _activations(self, name: str, site: Site) -> Float[np.ndarray, "T W"]:
        return self._array(f"{site.key}.{name}", None, np.dtype(self.manifest["keep_dtype"])).astype(np.float32, copy=False)

    def _absent(self, name: str, site: Site) -> Float[np.ndarray, "T W"]:
        """Run the model again for what was not kept, where the model is at hand."""
        if self._recompute is None:
            return super()._absent(name, site)
        if (name, site.key) not in self._recomputed:
            self._recomputed = {(name, site.key): self._recompute(self, name, site)}
        return self._recomputed[name, site.key]

    def _array(self, name: str, columns: int | None, dtype: np.dtype[Any]) -> np.ndarray:
        """Return one array over all shards; a single shard stays mapped."""
        parts = [_mapped(self._shard(n) / f"{name}.npy", int(rows), columns, dtype) for n, rows in zip(self._numbers, self.shards["rows"], strict=True)]
        if not parts:
            return np.empty((0, columns or 0), dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _table(self, name: str) -> pa.Table:
        if not self._numbers:
            raise PolytopeError(f"{self.path}: no shard is complete yet; run the capture again")
        tables = []
        for number in self._numbers:
            file = self._shard(number) / name
            if file.is_symlink() or not file.is_file():
                raise PolytopeError(f"{file}: missing; run `polytope-lm info {self.path} --verify`")
            try:
                tables.append(pq.read_table(file))
            except (pa.ArrowException, OSError) as error:
                raise PolytopeError(f"{file}: damaged ({str(error)[:80]}); run `polytope-lm info {self.path} --verify`") from error
        return pa.concat_tables(tables, promote_options="permissive")

    def _shard(self, number: int) -> Path:
        return self.path / layout.SHARDS / layout.shard_name(number)


def open_store(path: str | Path) -> CodeStore:
    """Open a store for reading.

    Args:
        path: its directory.

    Raises:
        PolytopeError: no store there, a damaged manifest, or another format version.

    """
    return CodeStore(Path(path))


def _mapped(path: Path, rows: int, columns: int | None, dtype: np.dtype[Any]) -> np.ndarray:
    """Map an `.npy` file after its header and size were checked; never unpickle, never follow a link.

    Raises:
        PolytopeError: missing, a link, or not the array that the store's record promises.

    """
    if path.is_symlink() or not path.is_file():
        raise PolytopeError(f"{path}: missing; delete its shard and run the capture again")
    try:
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, found = read(stream)
            offset = stream.tell()
    except (ValueError, OSError) as error:
        raise PolytopeError(f"{path}: damaged header ({str(error)[:60]}); delete its shard and run the capture again") from error
    fits = len(shape) == 2 and shape[0] == rows and columns in {None, shape[-1]} and found == dtype and not fortran
    if not fits or path.stat().st_size != offset + int(np.prod(shape)) * dtype.itemsize:
        raise PolytopeError(
            f"{path}: holds {found} {shape} in {path.stat().st_size} bytes, expected {dtype} [{rows}, {columns or 'any'}]; "
            f"delete its shard and run the capture again"
        )
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
