"""Codes from a `datasets.Dataset`, as `TokenCodes.to_dataset` makes one: a row a token, packed bytes a site.

What a table has no place for (sites, documents, provenance) travels as JSON in the data set's description, which
selecting, sorting and `save_to_disk` keep. Parquet files and `push_to_hub` drop it: push the store itself, by
`CodeStore.push`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.codes.codes import DESCRIBED, Codes
from polytope_lm.codes.store.layout import KEEPABLE, array_names
from polytope_lm.codes.store.tables import NUMBERS, TOKEN_COLUMNS
from polytope_lm.errors import PolytopeError, brief, public
from polytope_lm.files import parse_json
from polytope_lm.models.sites import Site, width_of

if TYPE_CHECKING:
    import datasets


@public
def from_dataset(dataset: datasets.Dataset) -> Codes:
    """Return the codes that a data set holds, as `to_dataset` made it; rows may have been selected or sorted.

    Args:
        dataset: a `datasets.Dataset`, its columns and description as they were; columns that were added are labels
            if they hold strings.

    Raises:
        PolytopeError: no such data set, a description that is not there any more, or columns that do not fit it.

    Examples:
        >>> import polytope_lm as plm
        >>> codes = plm.encode(plm.load("tiny-gpt2"), ["The loop ends", "It begins"], layers=[2])
        >>> plm.from_dataset(codes.to_dataset().filter(lambda row: row["document"] == 1))
        Codes: 6 tokens of 2 documents; L02.pre (512 bits); kept h; tiny-gpt2

    """
    description = getattr(getattr(dataset, "info", None), "description", None)
    if not isinstance(description, str) or not hasattr(dataset, "with_format"):
        raise PolytopeError(f"{brief(dataset)} is no data set; give the one that to_dataset() made")
    if not description.startswith(f'{{"{DESCRIBED}"'):
        raise PolytopeError(
            "the data set's description does not say which codes it holds (Parquet and push_to_hub drop it): give "
            "what to_dataset() made, or push the store itself by store.push('owner/name')"
        )
    note = parse_json(description, "the data set's description").get(DESCRIBED)
    sites, kept, ids, texts = _described(note)
    table = dataset.with_format("arrow")[:].combine_chunks()
    if missing := [name for name in TOKEN_COLUMNS if name not in table.column_names]:
        raise PolytopeError(f"the data set has no column {missing[0]!r}; keep the columns that to_dataset() made")
    arrays = {
        name: _array(table, name, width_of(site, one), np.uint8 if one is None else np.float32)
        for name, (site, one) in array_names(sites, kept).items()
    }
    rest = table.drop_columns(list(arrays)).to_pandas()
    frame = rest[[name for name in rest if name in NUMBERS or str(rest[name].dtype) in {"str", "string", "object"}]]
    frame = frame.astype(dict.fromkeys(NUMBERS, np.int64) | dict.fromkeys(frame.columns.difference(NUMBERS), "str"))
    outside = frame["document"][(frame["document"] < 0) | (frame["document"] >= len(ids))]
    if len(outside):
        raise PolytopeError(f"the data set's column 'document' names document {outside.iloc[0]} of {len(ids)}")
    bits = {site.key: arrays.pop(site.key) for site in sites}
    return Codes(sites, frame, bits, ids, texts, kept, note["provenance"], arrays)


def _described(note: Any) -> tuple[tuple[Site, ...], tuple[str, ...], list[str], list[str]]:
    """Check a description; return sites, names of kept activations, identifiers and texts."""
    lists = ("sites", "kept", "ids", "texts")
    if not isinstance(note, dict) or not all(isinstance(note.get(name), list) for name in lists):
        raise PolytopeError(f"the data set's description is damaged: {brief(note)}")
    strings = [*note["ids"], *note["texts"]]
    fits = len(note["ids"]) == len(note["texts"]) and all(isinstance(text, str) for text in strings)
    if not fits or not isinstance(note.get("provenance"), dict) or any(n not in KEEPABLE for n in note["kept"]):
        raise PolytopeError("the data set's description is damaged: identifiers, texts or provenance do not fit")
    return tuple(Site.from_dict(site) for site in note["sites"]), tuple(note["kept"]), note["ids"], note["texts"]


def _array(table: Any, name: str, width: int, dtype: type) -> np.ndarray:
    if name not in table.column_names:
        raise PolytopeError(f"the data set has no column {name!r}; keep the columns that to_dataset() made")
    column = table[name].combine_chunks()
    flat = column.flatten() if hasattr(column, "flatten") else None
    if flat is None or column.null_count or len(flat) != len(column) * width:
        raise PolytopeError(f"the data set's column {name!r} is no list of {width} numbers a row")
    return np.ascontiguousarray(flat.to_numpy(zero_copy_only=False), dtype=dtype).reshape(len(column), width)
