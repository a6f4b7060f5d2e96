"""Codes as a data set of Hugging Face's, and back."""

from __future__ import annotations

import datasets
import numpy as np
import pandas as pd
import pytest
from small import SENTENCES

import polytope_lm as plm

NUMBERS = ["document", "position", "start", "end", "token_id"]


@pytest.fixture(scope="module")
def codes(model):
    documents = [plm.documents.Document(str(n), text, {"even": str(n % 2 == 0)}) for n, text in enumerate(SENTENCES)]
    return plm.encode(model, documents, layers=[0, 1], keep=["h", "u"])


def same(found, wanted) -> None:
    pd.testing.assert_frame_equal(found.tokens, wanted.tokens.reset_index(drop=True))
    assert (list(found.ids), list(found.texts), found.kept) == (list(wanted.ids), list(wanted.texts), wanted.kept)
    assert found.sites == wanted.sites
    assert dict(found.provenance) == dict(wanted.provenance)
    for site in wanted.sites:
        np.testing.assert_array_equal(found.packed(site.layer), wanted.packed(site.layer))
        for name in wanted.kept:
            np.testing.assert_array_equal(found.activations(name, site.layer), wanted.activations(name, site.layer))


def test_there_and_back(codes, model, tmp_path):
    same(plm.from_dataset(codes.to_dataset()), codes)
    store = plm.capture(model, SENTENCES, to=tmp_path / "store", layers=[1], keep=["u"], shard_documents=1)
    same(plm.from_dataset(store.to_dataset()), store)
    codes.to_dataset().save_to_disk(str(tmp_path / "saved"))
    same(plm.from_dataset(datasets.load_from_disk(str(tmp_path / "saved"))), codes)


def test_rows_may_be_selected_sorted_and_labelled(codes):
    data = codes.to_dataset()
    some = plm.from_dataset(data.filter(lambda row: row["document"] in (1, 3)))
    rows = np.flatnonzero(codes.tokens["document"].isin([1, 3]))
    same(some, codes.select(rows))
    turned = plm.from_dataset(data.select(range(len(data) - 1, -1, -1)))
    np.testing.assert_array_equal(turned.bits(1), codes.bits(1)[::-1])
    assert turned.context(0) == codes.context(len(codes) - 1)
    labelled = plm.from_dataset(data.add_column("long", [str(len(t) > 4) for t in data["token"]]))
    assert set(labelled.tokens["long"]) == {"True", "False"}
    np.testing.assert_array_equal(
        labelled.select({"long": "True"}).bits(0), codes.bits(0)[labelled.tokens["long"] == "True"]
    )


def test_what_holds_no_codes_is_one_line(codes, tmp_path):
    data = codes.to_dataset()
    data.to_parquet(str(tmp_path / "codes.parquet"))
    parquet = datasets.Dataset.from_parquet(str(tmp_path / "codes.parquet"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(plm.PolytopeError, match=r"does not say which codes it holds .*store\.push"):
        plm.from_dataset(parquet)
    with pytest.raises(plm.PolytopeError, match="3 is no data set"):
        plm.from_dataset(3)
    with pytest.raises(plm.PolytopeError, match=r"no column 'L01\.pre'"):
        plm.from_dataset(data.remove_columns("L01.pre"))
    with pytest.raises(plm.PolytopeError, match="no column 'position'"):
        plm.from_dataset(data.remove_columns("position"))
    wide = data.map(lambda row: {"L01.pre": [*row["L01.pre"], 1]}, features=None)
    with pytest.raises(plm.PolytopeError, match=r"column 'L01\.pre' is no list of 12 numbers"):
        plm.from_dataset(wide)
    outside = data.map(lambda row: {"document": row["document"] + 100})
    with pytest.raises(plm.PolytopeError, match="names document 100 of 4"):
        plm.from_dataset(outside)
    for old, new in (
        ('"ids": ["0", ', '"ids": [7, '),
        ('"kept": ["h", ', '"kept": ["w", '),
        ('"sites": [', '"sit": ['),
    ):
        broken = data.select(range(3))
        broken.info.description = data.info.description.replace(old, new)
        assert broken.info.description != data.info.description
        with pytest.raises(plm.PolytopeError, match="damaged"):
            plm.from_dataset(broken)
