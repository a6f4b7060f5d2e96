"""What is read back is what was encoded, and how large it is."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.codes.store import layout, tables
from polytope_lm.codes.store import layout as arrays
from polytope_lm.documents import Document, Span

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | st.sampled_from(
    [
        "👩‍👩‍👧 family",
        "\u202etxet\u202c right to left",
        "nul \x00 and \x1b[31m",
        "<script>",
        "a\u0301\u0301",
        " ",
        "\n\n",
        "שלום עולם",
        "﷽",
    ]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(TEXT, min_size=1, max_size=6, unique=True).filter(lambda ts: any(t.strip() for t in ts)),
    rule=st.sampled_from(["all", "word-final", "every:2", "every:2,skip:3", "random:2"]),
    size=st.integers(1, 4),
    seed=st.integers(0, 3),
    bos=st.sampled_from([None, True]),
    data=st.data(),
)
def test_what_is_read_is_what_was_encoded(model, tmp_path_factory, texts, rule, size, seed, bos, data):
    path = tmp_path_factory.mktemp("round") / "store"
    documents = [
        Document(str(i), text, {"kind": data.draw(TEXT)}, (Span(0, 1, {"first": data.draw(TEXT)}),))
        for i, text in enumerate(texts)
        if text.strip()
    ]
    ways = {"tokens": rule, "seed": seed, "bos": bos, "layers": [1], "keep": ["u"], "all_pieces": True}
    try:
        memory = plm.encode(model, documents, **ways)
    except plm.PolytopeError:
        with pytest.raises(plm.PolytopeError, match="no token is stored"):
            plm.capture(model, documents, to=path, shard_documents=size, **ways)
        return
    store = plm.capture(model, documents, to=path, shard_documents=size, **ways)
    reopened = plm.open_store(path)
    assert reopened.verify() == []
    for codes in (store, reopened):
        assert codes.tokens.equals(memory.tokens)
        assert (codes.texts, codes.ids) == (memory.texts, memory.ids)
        np.testing.assert_array_equal(codes.packed(1), memory.packed(1))
        np.testing.assert_allclose(codes.activations("u", 1), memory.activations("u", 1), atol=2e-6)
    shutil.rmtree(path)


def test_size_at_a_hundred_thousand_tokens(tmp_path):
    """The table without labels: at most 8 bytes a token. Tokens and offsets as a real tokenizer gives "
    "them."""
    rng = np.random.default_rng(0)
    n, per_document = 100_000, 500
    lengths = np.maximum(1, rng.poisson(4.2, n))
    ends = np.cumsum(lengths.reshape(-1, per_document), axis=1).ravel()
    zipf = np.minimum(rng.zipf(1.1, n), 50_256)
    columns = {
        "document": np.repeat(np.arange(n // per_document), per_document),
        "position": np.tile(np.arange(per_document), n // per_document),
        "start": ends - lengths, "end": ends, "token_id": rng.permutation(50_257)[zipf],
    }  # fmt: skip
    shards = []
    for first in range(0, n, 32_000):
        part = {name: values[first : first + 32_000] for name, values in columns.items()}
        tables.write_parquet(tables.token_table(part, {}), tmp_path / f"{first}.parquet")
        shards.append((tmp_path / f"{first}.parquet").stat().st_size)
    assert sum(shards) / n <= 8
    arrays.allocate(tmp_path / "bits.npy", (n, -(-3072 // 8)), "uint8")
    assert (tmp_path / "bits.npy").stat().st_size == n * 384 + 128


def test_the_record_of_a_shard_is_what_is_on_disk(model, tmp_path):
    store = plm.capture(model, SENTENCES, to=tmp_path / "store", shard_documents=2, keep=["h"])
    assert store.shards["documents"].tolist() == [2, 2]
    for number, size in zip(store.shards["shard"], store.shards["bytes"], strict=True):
        files = [p for p in layout.shard_path(store.path, number).iterdir() if p.name != layout.SHARD]
        assert sum(p.stat().st_size for p in files) == size
        schema = pq.read_schema(layout.shard_path(store.path, number) / layout.TOKENS)
        assert schema.names == list(tables.NUMBERS)
    assert (store.path / ".lock").stat().st_size == 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_rows_written_in_any_order_are_numpys_own(tmp_path, data):
    dtype = data.draw(st.sampled_from(["uint8", "float16", "float32"]))
    shape = data.draw(st.tuples(st.integers(0, 12), st.integers(0, 9)))
    path, expected = tmp_path / "rows.npy", np.zeros(shape, dtype)
    written = layout.allocate(path, shape, dtype)
    np.save(tmp_path / "plain.npy", expected)
    assert path.read_bytes() == (tmp_path / "plain.npy").read_bytes()
    for number in range(data.draw(st.integers(0, 4)) if shape[0] else 0):
        rows = data.draw(
            st.one_of(
                st.lists(st.integers(0, shape[0] - 1), unique=True).map(lambda r: np.array(r, int)),
                st.tuples(st.integers(0, shape[0]), st.integers(0, shape[0])).map(lambda ends: slice(*ends)),
            )
        )
        first = data.draw(st.integers(0, shape[1]))
        last = data.draw(st.integers(first, shape[1]))
        rest = (slice(None),) if data.draw(st.booleans()) else (slice(first, last),)
        values = np.random.default_rng(number).integers(0, 200, expected[(rows, *rest)].shape).astype(np.float64)
        expected[(rows, *rest)] = values
        written[rows if rest == (slice(None),) else (rows, *rest)] = values
    np.save(tmp_path / "plain.npy", expected)
    assert path.read_bytes() == (tmp_path / "plain.npy").read_bytes()
    np.testing.assert_array_equal(layout.mapped(path, shape, np.dtype(dtype)), expected)


def test_a_disk_without_room_for_a_shard_is_told_before_it_is_filled(model, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=100))
    with pytest.raises(plm.PolytopeError, match="the disk is full"):
        plm.capture(model, SENTENCES, to=tmp_path / "store")
    monkeypatch.undo()
    assert plm.capture(model, SENTENCES, to=tmp_path / "store").verify() == []
