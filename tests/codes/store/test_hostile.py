"""What a store does with files that somebody made up: it refuses them, and runs none."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stores import ARRAY, FILES, everything

import polytope_lm as plm
from polytope_lm.codes.store import layout


class Bomb:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def as_record(store: Path) -> None:
    """Make shard 1's record fit its files: whoever can write files can write sums."""
    shard = store / "shards/00001"
    old = json.loads((shard / "shard.json").read_bytes())
    files = {
        p.name: layout.FileRecord(p.stat().st_size, layout.sha256(p))
        for p in shard.iterdir()
        if p.name != "shard.json"
    }
    record = layout.Record(
        old["rows"], old["first_document"], old["documents"], old["documents_sha256"], files
    )
    (shard / "shard.json").write_bytes(record.to_bytes())


def header(text: str) -> bytes:
    line = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line.encode()


def hostile_arrays(store: Path) -> dict[str, bytes]:
    rows = plm.open_store(store).shards["rows"][1]
    pickled = io.BytesIO()
    np.save(pickled, np.array([Bomb(store.parent / "bomb")], dtype=object), allow_pickle=True)
    data = bytes(rows * 12)
    return {
        "pickled": pickled.getvalue(),
        "bare pickle": pickle.dumps(Bomb(store.parent / "bomb")),
        "huge": header("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999, 12), }") + data,
        "overflowing": header("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 60 + ", 12), }")
        + data,
        "wide": header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows * 2}, 6), }}") + data,
        "other type": header(f"{{'descr': '|i1', 'fortran_order': False, 'shape': ({rows}, 12), }}") + data,
        "columns first": header(f"{{'descr': '|u1', 'fortran_order': True, 'shape': ({rows}, 12), }}") + data,
        "code": header("{'descr': '|u1', 'shape': __import__('os').system('true'), }") + data,
        "short": (store / ARRAY).read_bytes()[:-1],
        "long": (store / ARRAY).read_bytes() + b"x",
        "version 3": b"\x93NUMPY\x03\x00" + data,
        "nested": header("(" * 100) + data,
        "empty": b"",
    }


KINDS = [
    "pickled",
    "bare pickle",
    "huge",
    "overflowing",
    "wide",
    "other type",
    "columns first",
    "code",
    "short",
    "long",
    "version 3",
    "nested",
    "empty",
]


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_arrays_are_refused(store, kind):
    (store / ARRAY).write_bytes(hostile_arrays(store)[kind])
    as_record(store)
    with pytest.raises(
        plm.PolytopeError, match=r"L01.pre.npy: .*delete .* and run the capture again"
    ) as error:
        everything(store)
    assert "\n" not in str(error.value)
    assert not (store.parent / "bomb").exists()


@pytest.mark.parametrize("name", [*FILES, "shards/00001", "shards"])
def test_links_are_not_followed(store, name):
    (store / name).rename(store.parent / "elsewhere")
    (store / name).symlink_to(store.parent / "elsewhere")
    if name not in {"shards/00001", "complete.json"}:
        with pytest.raises(plm.PolytopeError, match="link"):
            everything(store)
    elif name == "shards/00001":
        assert len(plm.open_store(store).shards) == 1
        assert any("a link" in line and name in line for line in plm.open_store(store).verify())
    else:
        with pytest.raises(plm.PolytopeError, match="link"):
            assert plm.open_store(store).complete


def changed(store: Path, edit: dict) -> None:
    """Write a manifest with other values, and the sum that fits."""
    manifest = json.loads((store / "manifest.json").read_bytes())
    site = manifest["sites"][0]
    site |= edit.pop("site", {})
    site["premises"] |= edit.pop("premises", {})
    content = layout.dump(manifest | edit)
    (store / "manifest.json").write_bytes(content)
    (store / "manifest.sha256").write_bytes(layout.manifest_sum(content))


EDITS = [
    {"site": {"kind": "../../../etc"}},
    {"site": {"kind": 3}},
    {"site": {"kind": ["pre"]}},
    {"site": {"layer": -1}},
    {"site": {"layer": "../x"}},
    {"site": {"layer": True}},
    {"site": {"width": 0}},
    {"site": {"width": 1e9}},
    {"site": {"width": 10**30}},
    {"site": {"d_model": 0}},
    {"site": {"hook": None}},
    {"site": {"surprise": 1}},
    {"site": {"kind": "custom", "hook": "x" * 500}},
    {"premises": {"linearity": 1}},
    {"premises": {"surprise": 1}},
    {"sites": []},
    {"sites": {}},
    {"sites": None},
    {"sites": ["x"]},
    {"sites": [{}]},
    {"keep": "u"},
    {"keep": ["../u"]},
    {"keep": [["u"]]},
    {"keep": ["u", "u"]},
    {"keep_dtype": "object"},
    {"keep_dtype": []},
    {"shard_documents": 0},
    {"shard_documents": "2"},
    {"format": 2},
    {"format": [1]},
]


@pytest.mark.parametrize("edit", EDITS, ids=str)
def test_hostile_manifests_are_refused_in_one_line(store, edit):
    changed(store, json.loads(json.dumps(edit)))
    with pytest.raises(plm.PolytopeError, match="store") as error:
        everything(store)
    assert "\n" not in str(error.value)


def test_names_come_from_no_file(store):
    """A declared hook point may have any name; what is opened for it is inside the shard."""
    (store.parent / "target.npy").write_bytes((store / ARRAY).read_bytes())
    changed(store, {"site": {"kind": "custom", "hook": "../../../target"}})
    with pytest.raises(plm.PolytopeError, match=r"custom\.\.\.%2F\.\.%2F\.\.%2Ftarget\.npy: missing"):
        everything(store)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"rows": NaN}', b"{}"]
)
@pytest.mark.parametrize("name", ["manifest.json", "shards/00001/shard.json", "complete.json"])
def test_other_json_is_refused_in_one_line(store, name, content):
    (store / name).write_bytes(content)
    if name == "manifest.json":
        (store / "manifest.sha256").write_bytes(layout.manifest_sum(content))
    with pytest.raises(plm.PolytopeError) as error:
        assert everything(store).complete
    assert "\n" not in str(error.value)
    assert name in str(error.value) or "store format" in str(error.value)


@pytest.mark.parametrize(
    "edit",
    [
        {"rows": -1},
        {"rows": 10**18},
        {"rows": "5"},
        {"files": {"../x": {"bytes": 1, "sha256": "0"}}},
        {"files": []},
        {"files": {"x": 1}},
    ],
)
def test_hostile_records_are_refused_in_one_line(store, edit):
    file = store / "shards/00001/shard.json"
    record = json.loads(file.read_bytes()) | edit
    record.pop("sha256")
    record["sha256"] = hashlib.sha256(layout.dump(record)).hexdigest()
    file.write_bytes(layout.dump(record))
    with pytest.raises(plm.PolytopeError, match=r"delete|expected") as error:
        everything(store)
    assert "\n" not in str(error.value)


def hostile_tables(store: Path) -> dict[str, tuple[str, pa.Table]]:
    tokens, documents = (pq.read_table(store / "shards/00001" / n) for n in (layout.TOKENS, layout.DOCUMENTS))
    far = tokens.set_column(0, "document", pa.array([10**6] * len(tokens), pa.uint32()))
    dictionary = pa.array(["x"] * len(tokens)).dictionary_encode()
    nulls = tokens.set_column(1, "position", pa.nulls(len(tokens), pa.uint32()))
    return {
        "documents of nowhere": (layout.TOKENS, far),
        "fewer rows": (layout.TOKENS, tokens.slice(1)),
        "no columns": (layout.TOKENS, tokens.select([])),
        "texts for numbers": (layout.TOKENS, tokens.set_column(2, "start", pa.array(["x"] * len(tokens)))),
        "a label that hides": (layout.TOKENS, tokens.append_column("label.token", dictionary)),
        "a column of its own": (layout.TOKENS, tokens.append_column("surprise", dictionary)),
        "nothing for numbers": (layout.TOKENS, nulls),
        "other indices": (layout.DOCUMENTS, documents.set_column(0, "index", pa.array([0, 1], pa.uint32()))),
        "twice the column": (layout.DOCUMENTS, documents.append_column("text", documents["text"])),
        "nothing for texts": (layout.DOCUMENTS, documents.set_column(2, "text", pa.nulls(2, pa.string()))),
    }


TABLES = [
    "documents of nowhere",
    "fewer rows",
    "no columns",
    "texts for numbers",
    "a label that hides",
    "a column of its own",
    "nothing for numbers",
    "other indices",
    "twice the column",
    "nothing for texts",
]


@pytest.mark.parametrize("kind", TABLES)
def test_hostile_tables_are_refused_in_one_line(store, kind):
    name, table = hostile_tables(store)[kind]
    pq.write_table(table, store / "shards/00001" / name)
    as_record(store)
    with pytest.raises(plm.PolytopeError, match=rf"{name}: .*delete .* and run the capture again") as error:
        everything(store)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_table_is_refused_in_one_line(store):
    (store / "shards/00001/tokens.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    as_record(store)
    with pytest.raises(plm.PolytopeError, match=r"tokens\.parquet: damaged") as error:
        everything(store)
    assert "\n" not in str(error.value)
    with pytest.raises(plm.PolytopeError, match="no store here"):
        plm.open_store(store / "shards")


def test_only_the_store_s_own_names_are_shards(store):
    for name in ("000001", "1", "٠٠٠٠٣", "00002.old"):
        shutil.copytree(store / "shards/00001", store / "shards" / name)
    assert layout.committed(store) == plm.open_store(store).shards["shard"].tolist() == [0, 1]
