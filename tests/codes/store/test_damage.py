"""What a store does with damage: it names the file and the cure."""

from __future__ import annotations

import shutil

import pytest
from small import SENTENCES
from stores import ARRAY, FILES

import polytope_lm as plm


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
    assert f"{store}/shards/00001: holds the documents of another shard: delete it and run the capture again" in said


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


def test_every_flipped_bit_of_the_note_about_the_whole_is_found(store):
    opened, content = plm.open_store(store), (store / "complete.json").read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            (store / "complete.json").write_bytes(flipped)
            assert any("complete.json" in line or "missing shard" in line for line in opened.verify()), flipped
