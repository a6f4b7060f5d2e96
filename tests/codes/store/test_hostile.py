"""What a store does with files that somebody made up: it refuses them, and runs none."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small import SENTENCES
from stores import ARRAY, FILES, everything

import polytope_lm as plm
from polytope_lm.codes.store import layout, reader


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
        p.name: layout.FileRecord(p.stat().st_size, layout.sha256(p)) for p in shard.iterdir() if p.name != "shard.json"
    }
    record = layout.Record(
        old["rows"], old["first_document"], old["documents"], old["documents_sha256"], files, old["manifest"]
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
        "overflowing": header("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "9" * 60 + ", 12), }") + data,
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
    with pytest.raises(plm.PolytopeError, match=r"L01.pre.npy: .*delete .* and run the capture again") as error:
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


def adopt(store: Path) -> None:
    """Let every shard name the manifest that is there."""
    digest = layout.digest(json.loads((store / "manifest.json").read_bytes()))
    for shard in (store / "shards").iterdir():
        record = json.loads((shard / "shard.json").read_bytes()) | {"manifest": digest}
        del record["sha256"]
        record["sha256"] = hashlib.sha256(layout.dump(record)).hexdigest()
        (shard / "shard.json").write_bytes(layout.dump(record))


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
    {"format": 3},
    {"format": True},
    {"site": {"d_model": 2**40}},
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
    adopt(store)
    with pytest.raises(plm.PolytopeError, match=r"custom\.\.\.%2F\.\.%2F\.\.%2Ftarget\.npy: missing"):
        everything(store)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"rows": NaN}', b"{}"])
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


def least_memory(code: str, *args: object) -> str:
    """Run code in a process with 2 GB of memory and 256 descriptors; return its last line."""
    limits = (
        "import resource as r, sys; r.setrlimit(r.RLIMIT_AS, (2**31, 2**31)); "
        "r.setrlimit(r.RLIMIT_NOFILE, (256, 256)); import polytope_lm as plm\n"
    )
    command = [sys.executable, "-c", limits + code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(("kind", "lines", "last"), [("complete", 1001, 1001), ("directory", 1002, 1000)])
def test_numbers_of_shards_out_of_all_proportion_take_no_memory(store, kind, lines, last):
    if kind == "complete":
        (store / "complete.json").write_bytes(layout.dump({"rows": 9, "shards": 10**9}))
    else:
        (store / "shards/00001").rename(store / "shards/999999999")
    code = (
        "s = plm.open_store(sys.argv[1]); said = s.verify()\n"
        "print(len(said), s.n_missing, len(s.missing), s.missing[-1], repr(s).count(chr(10)))"
    )
    assert least_memory(code, store) == f"{lines} {10**9 - 2} 1000 {last} 0"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["fifo", "zero"])
def test_what_is_no_regular_file_is_refused_at_once(model, store, name, kind):
    (store / name).unlink()
    os.mkfifo(store / name) if kind == "fifo" else (store / name).symlink_to("/dev/zero")
    for use in (
        everything,
        lambda path: plm.open_store(path).verify() and plm.open_store(path).complete,
        lambda path: plm.capture(model, SENTENCES, to=path, layers=[1], keep=["u"], shard_documents=2),
    ):
        with contextlib.suppress(plm.PolytopeError):
            assert name == "complete.json" or use is None or use(store)
    said = list(reader.problems(store))
    assert any(name in line for line in said), said


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "complete.json"])
def test_a_link_under_a_temporary_name_is_never_written_through(model, tmp_path, name):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "store").mkdir()
    (tmp_path / f"store/{name}.tmp").symlink_to(mine)
    (tmp_path / "store/shards").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store/shards/.00000.tmp").symlink_to(tmp_path / "elsewhere")
    with contextlib.suppress(plm.PolytopeError):  # complete.json.tmp is nothing that a new store has
        plm.capture(model, SENTENCES, to=tmp_path / "store", layers=[1])
    assert mine.read_text() == "mine"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    for lock in (".lock", ".lock.1.1"):
        (tmp_path / "locked").mkdir(exist_ok=True)
        (tmp_path / f"locked/{lock}").symlink_to(mine)
        with pytest.raises(plm.PolytopeError, match="locked") as error:
            plm.capture(model, SENTENCES, to=tmp_path / "locked", layers=[1])
        assert "\n" not in str(error.value)
        assert mine.read_text() == "mine"
        (tmp_path / f"locked/{lock}").unlink()


def test_a_link_for_the_shards_directory_is_refused_before_anything_is_written(model, store, tmp_path):
    shutil.rmtree(store / "shards/00001")
    (store / "shards").rename(tmp_path / "elsewhere")
    (store / "shards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(plm.PolytopeError, match="shards: a link"):
        plm.capture(model, SENTENCES, to=store, layers=[1], keep=["u"], shard_documents=2)
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["00000"]


def test_a_manifest_as_deep_as_json_goes_or_larger_than_any_is_refused_in_one_line(store):
    deep = b'{"a": ' * 900 + b"1" + b"}" * 900
    manifest = (store / "manifest.json").read_bytes()
    for content in (deep, manifest.replace(b'"threads"', b'"x": ' + b"[" * 700 + b"]" * 700 + b', "threads"')):
        (store / "manifest.json").write_bytes(content)
        (store / "manifest.sha256").write_bytes(layout.manifest_sum(content))
        with pytest.raises(plm.PolytopeError) as error:
            everything(store)
        assert "\n" not in str(error.value)
    with (store / "manifest.json").open("wb") as stream:
        stream.truncate(10**10)
    with pytest.raises(plm.PolytopeError, match="larger than the"):
        plm.open_store(store)


def test_documents_in_a_record_beyond_all_proportion_take_no_memory(store):
    file = store / "shards/00001/shard.json"
    record = json.loads(file.read_bytes()) | {"documents": 10**12}
    del record["sha256"]
    record["sha256"] = hashlib.sha256(layout.dump(record)).hexdigest()
    file.write_bytes(layout.dump(record))
    code = "try: len(plm.open_store(sys.argv[1]).documents)\nexcept plm.PolytopeError as e: print(e)"
    assert "2 rows, 1000000000000 were written" in least_memory(code, store)
