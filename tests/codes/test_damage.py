"""What a store does with damage and with files that somebody made up: it names them, and runs none."""

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
from small import SENTENCES

import polytope_lm as plm
from polytope_lm.codes import layout

FILES = [
    "manifest.json",
    "manifest.sha256",
    "complete.json",
    "shards/00001/L01.pre.npy",
    "shards/00001/L01.pre.u.npy",
    "shards/00001/tokens.parquet",
    "shards/00001/documents.parquet",
    "shards/00001/shard.json",
]
ARRAY = "shards/00001/L01.pre.npy"


@pytest.fixture(scope="module")
def sound(model: plm.models.loading.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "store"
    plm.capture(model, SENTENCES, to=path, layers=[1], keep=["u"], shard_documents=2)
    return path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "store"))


def everything(path: Path) -> plm.CodeStore:
    """Read all that a store has."""
    found = plm.open_store(path)
    found.packed(1)
    found.activations("u", 1)
    assert len(found.tokens) == len(found)
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_a_flipped_byte_is_found_and_its_file_named(store, name, place):
    opened = plm.open_store(store)
    assert opened.verify() == []
    content = bytearray((store / name).read_bytes())
    content[round(place * (len(content) - 1))] ^= 0x10
    (store / name).write_bytes(content)
    said = opened.verify()
    assert any(name in line or line.startswith(str(store / name)) for line in said), said
    assert len(said) == 1
    assert "\n" not in said[0]


def test_what_is_missing_truncated_foreign_or_a_link_is_named(store):
    opened = plm.open_store(store)
    (store / ARRAY).write_bytes((store / ARRAY).read_bytes()[:-1])
    (store / "shards/00001/documents.parquet").unlink()
    (store / "notes.txt").write_text("mine")
    (store / "shards/00000/extra.npy").write_text("mine")
    (store / "shards/00007").mkdir()
    (store / "shards/000001").mkdir()
    (store / "shards/٠٠٠٠٣").mkdir()
    outside = store.parent / "outside.npy"
    (store / "shards/00000/L01.pre.npy").rename(outside)
    (store / "shards/00000/L01.pre.npy").symlink_to(outside)
    (store / ".lock.1.1").write_text("x")
    said = "\n".join(opened.verify())
    for name, what in [
        (ARRAY, "bytes, "),
        ("shards/00001/documents.parquet", "missing"),
        ("notes.txt", "foreign"),
        ("shards/00000/extra.npy", "foreign"),
        ("shards/00005", "missing shard"),
        ("shards/00007/shard.json", "no such file"),
        ("shards/000001", "foreign"),
        ("shards/٠٠٠٠٣", "foreign"),
        ("shards/00000/L01.pre.npy", "a link"),
        (".lock.1.1", "not empty"),
    ]:
        assert f"{store / name}: " in said
        assert what in said.split(f"{store / name}: ")[1].splitlines()[0]


def test_missing_shards_and_an_unfinished_capture_are_named(store, caplog):
    shutil.rmtree(store / "shards/00001")
    opened = plm.open_store(store)
    assert not opened.complete
    assert len(opened.shards) == 1
    assert opened.verify() == [f"{store}/shards/00001: missing shard: run the capture again"]
    with pytest.raises(plm.PolytopeError, match=r"1 shard missing of a finished store \(00001\): run the"):
        len(opened)
    with pytest.raises(plm.PolytopeError, match=r"1 shard missing"):
        opened.packed(1)
    assert "2 documents" in repr(opened)
    assert repr(opened).endswith("incomplete: 1 shard missing")
    assert "1 shard missing" in opened._repr_html_()
    assert opened.provenance["incomplete"] == "1 shard missing"
    assert "store is incomplete: 1 shard missing; run the capture again" in caplog.text
    (store / "complete.json").unlink()
    assert opened.verify() == [f"{store}: not finished: run the capture again"]
    (store / "shards/00000").rename(store / "shards/00001")
    said = plm.open_store(store).verify()
    assert (
        f"{store}/shards/00001: holds the documents of another shard: delete it and run the capture again"
        in said
    )


def test_a_gap_of_an_unfinished_store_is_said_and_what_is_there_can_be_read(store, caplog):
    assert "incomplete" not in plm.open_store(store).provenance
    assert not caplog.records
    (store / "complete.json").unlink()
    assert repr(plm.open_store(store)).endswith("incomplete: the capture did not finish")
    shutil.rmtree(store / "shards/00000")
    opened = plm.open_store(store)
    assert opened.missing == (0,)
    assert "incomplete: 1 shard missing" in repr(opened)
    assert len(opened) == len(opened.packed(1)) > 0
    assert opened.verify() == [f"{store}: not finished: run the capture again"]


def test_what_an_interrupted_capture_left_is_not_foreign(store):
    (store / "shards/.00007.tmp").mkdir()
    (store / "complete.json.tmp").write_text("{")
    (store / "shards/.notes.tmp").write_text("mine")
    said = plm.open_store(store).verify()
    cure = "left over from an interrupted capture; run the capture again"
    assert f"{store}/shards/.00007.tmp: {cure}" in said
    assert f"{store}/complete.json.tmp: {cure}" in said
    assert f"{store}/shards/.notes.tmp: foreign: it is not the store's, move it away" in said
    assert len(said) == 3


def test_the_cure_cures(model, store):
    whole = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    (store / ARRAY).write_bytes(b"")
    shutil.rmtree(store / "shards/00001")
    (store / "complete.json").write_text("{}")
    with pytest.raises(plm.PolytopeError, match=r"complete.json: damaged.*delete it and capture again"):
        plm.capture(model, SENTENCES, to=store, layers=[1], keep=["u"], shard_documents=2)
    (store / "complete.json").unlink()
    plm.capture(model, SENTENCES, to=store, layers=[1], keep=["u"], shard_documents=2)
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == whole


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


def test_every_flipped_bit_of_the_note_about_the_whole_is_found(store):
    opened, content = plm.open_store(store), (store / "complete.json").read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            (store / "complete.json").write_bytes(flipped)
            assert any("complete.json" in line or "missing shard" in line for line in opened.verify()), (
                flipped
            )
