"""The store: resuming to the same bytes, one writer, parts, refusals, size."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import SENTENCES, tree

import polytope_lm as plm
from polytope_lm.codes import capture, forward
from polytope_lm.codes.store import layout, reader, tables, writer
from polytope_lm.codes.store import layout as arrays
from polytope_lm.codes.store.writer import StoreWriter
from polytope_lm.documents import Document, Span

TEXTS = [*SENTENCES, "One more bank.", "And 1 word: ☃."]
WAYS = {"layers": [0, 2], "keep": ["h"], "shard_documents": 2}


class KilledError(BaseException):
    """Stands for the end of the process: nothing may catch it."""


@pytest.fixture(scope="module")
def whole(model: plm.models.model.Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    path = tmp_path_factory.mktemp("whole") / "store"
    plm.capture(model, TEXTS, to=path, **WAYS)
    return tree(path)


# where the process ends, and how often that place is passed before: three shards, every boundary and inside
# each
PLACES = [
    *[(capture, "fill", n) for n in range(3)],
    *[(tables, "write_parquet", n) for n in range(6)],
    *[(layout, "sha256", n) for n in (0, 2, 5)],
    *[(layout, "write", n) for n in range(6)],
    *[(layout, "sync_directory", n) for n in range(0, 9, 2)],
    *[(arrays, "allocate", n) for n in (0, 3)],
    *[(Path, "rename", n) for n in range(3)],
    *[(Path, "replace", n) for n in (0, 1, 5)],
    *[(StoreWriter, "commit", n) for n in range(3)],
    (StoreWriter, "finish", 0),
]


CASES = [*((*place, True) for place in PLACES), *((*place, False) for place in PLACES[1::6])]


@pytest.mark.parametrize(("where", "name", "passes", "hard"), CASES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_an_interrupted_capture_resumes_to_the_same_bytes(
    model, whole, tmp_path, monkeypatch, where, name, passes, hard
):
    real, passed = getattr(where, name), []

    def dying(*args, **options):
        passed.append(1)
        if len(passed) > passes:
            raise KilledError
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, dying)
        if hard:  # a killed process tidies nothing up
            patch.setattr(shutil, "rmtree", lambda *_a, **_o: None)
            patch.setattr(StoreWriter, "_free", lambda self: self._lock.release())
            patch.setattr(Path, "unlink", lambda *_a, **_o: None)
        with pytest.raises(KilledError):
            plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    if not hard:
        assert not list((tmp_path / "store").rglob(".*.tmp"))
    plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    assert tree(tmp_path / "store") == whole


CHILD = """
import sys; sys.path[:0] = {path!r}
import torch; torch.set_num_threads(1)
import polytope_lm as plm
plm.capture(plm.load("tiny-gpt2"), [f"Text number {{i}} of many." for i in range(400)], to=sys.argv[1],
layers=[0], shard_documents=4)
"""


def test_a_process_killed_for_real_resumes_to_the_same_bytes(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(path=sys.path[:1]))
    child = subprocess.Popen([sys.executable, script, tmp_path / "killed"], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed/shards/00003").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    stopped = plm.open_store(tmp_path / "killed")
    assert 0 < len(stopped.shards) < 100, "killed in the middle"
    assert not stopped.complete
    assert "not finished" in "".join(stopped.verify())
    model = plm.load("tiny-gpt2")
    texts = [f"Text number {i} of many." for i in range(400)]
    for name in ("killed", "whole"):
        plm.capture(model, texts, to=tmp_path / name, layers=[0], shard_documents=4)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_a_finished_capture_run_again_changes_nothing(model, tmp_path, monkeypatch):
    plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "store").rglob("*") if p.is_file()}
    monkeypatch.setattr(capture, "fill", None)
    plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    after = {p: p.stat().st_mtime_ns for p in before}
    assert {p for p in before if before[p] != after[p]} <= {tmp_path / "store/.lock"}


def test_parts_together_equal_the_whole(model, whole, tmp_path):
    for part in [(2, 3), (1, 3), (3, 3)]:
        store = plm.capture(model, TEXTS, to=tmp_path / "store", part=part, **WAYS)
        assert store.complete == (part == (3, 3))
        assert len(store.tokens) == sum(store.shards["rows"])
    assert tree(tmp_path / "store") == whole


def test_a_part_of_which_no_shard_is_opens_as_an_empty_store(model, tmp_path):
    store = plm.capture(model, TEXTS, to=tmp_path / "store", part=(4, 4), **WAYS)
    assert len(store) == 0
    assert "0 tokens of 0 documents" in repr(store)
    assert store.packed(0).shape == (0, 12)


@pytest.mark.parametrize("edit", ["text", "label", "span", "order", "more", "fewer", "more shards"])
def test_documents_that_changed_since_are_refused(model, tmp_path, edit):
    old = [Document(str(i), t, {"genre": "news"}, (Span(0, 2, {"pos": "X"}),)) for i, t in enumerate(TEXTS)]
    new = list(old)
    if edit in {"text", "label", "span"}:
        values = {"text": {"text": "Other text."}, "label": {"labels": {"genre": "blog"}}, "span": {"spans": ()}}
        new[1] = replace(old[1], **values[edit])
    elif edit == "order":
        new[2], new[3] = new[3], new[2]
    else:
        new = {"fewer": old[:-2], "more": [*old, replace(old[0], id="6", text="New.")]}.get(
            edit, [*old, *(replace(old[0], id=str(i), text=f"New {i}.") for i in (6, 7))]
        )
    # a stream has no digest of the whole to compare: shards and their number have to tell
    for stream in (False, True) if edit not in {"label", "span"} else (False,):
        sources = [plm.documents(documents) for documents in (old, new)]
        for source in sources if stream else ():
            source.name = "hub:somewhere"
        store = plm.capture(model, sources[0], to=tmp_path / f"store{stream}", **WAYS)
        before = tree(store.path)
        with pytest.raises(plm.PolytopeError, match="another --out") as error:
            plm.capture(model, sources[1], to=store.path, **WAYS)
        assert "\n" not in str(error.value)
        assert tree(store.path) == before


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"labels": {"genre": "blog"}}, "other labels or spans"),
        ({"spans": (Span(0, 2, {"pos": "Y"}),)}, "other labels or spans"),
        ({"id": "renamed"}, "other identifiers"),
        ({"text": "Another text."}, "other texts"),
    ],
)
def test_what_changed_only_in_the_missing_shards_is_refused_and_named(model, tmp_path, edit, said):
    old = [Document(str(i), t, {"genre": "news"}, (Span(0, 2, {"pos": "X"}),)) for i, t in enumerate(TEXTS)]
    plm.capture(model, old, to=tmp_path / "store", part=(1, 3), **WAYS)
    before = tree(tmp_path / "store")
    new = [*old[:-1], replace(old[-1], **edit)]
    with pytest.raises(plm.PolytopeError, match=f"with {said} than the source has now"):
        plm.capture(model, new, to=tmp_path / "store", **WAYS)
    assert tree(tmp_path / "store") == before
    assert plm.capture(model, old, to=tmp_path / "store", **WAYS).complete


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_an_interrupt_keeps_whole_batches_and_the_next_run_goes_on_to_the_same_bytes(
    model, tmp_path, monkeypatch, stop
):
    ways = {"layers": [0, 2], "keep": ["h"], "shard_documents": 6, "batch_tokens": 12}
    real, calls = forward.begin, []

    def stopped(*args):
        calls.append(1)
        if len(calls) > stop:
            raise KeyboardInterrupt
        return real(*args)

    plm.capture(model, TEXTS, to=tmp_path / "whole", **ways)
    with monkeypatch.context() as patch:
        patch.setattr(forward, "begin", stopped)
        with pytest.raises(KeyboardInterrupt):
            plm.capture(model, TEXTS, to=tmp_path / "store", **ways)
        left = tmp_path / "store/shards/.00000.tmp"
        assert json.loads((left / "partial.json").read_text())["batches"] == stop
        assert any("left over from an interrupted capture" in p for p in plm.open_store(left.parents[1]).verify())
        calls.clear()
        patch.setattr(forward, "begin", lambda *args: (calls.append(1), real(*args))[1])
        shutil.copytree(tmp_path / "store", tmp_path / "damaged")
        plm.capture(model, TEXTS, to=tmp_path / "store", **ways)
        done = len(calls)
        array = next((tmp_path / "damaged/shards/.00000.tmp").glob("*.h.npy"))
        array.write_bytes(array.read_bytes()[:-1] + b"?")
        calls.clear()
        plm.capture(model, TEXTS, to=tmp_path / "damaged", **ways)
    assert len(calls) == done + stop > stop + 1, "what is damaged is made anew"
    assert tree(tmp_path / "store") == tree(tmp_path / "damaged") == tree(tmp_path / "whole")


def test_a_resume_refuses_to_build_on_damaged_shards(model, tmp_path):
    plm.capture(model, TEXTS, to=tmp_path / "store", part=(1, 2), **WAYS)
    array = tmp_path / "store/shards/00000/L02.pre.npy"
    content = bytearray(array.read_bytes())
    content[-3] ^= 4
    array.write_bytes(content)
    with pytest.raises(plm.PolytopeError, match=r"00000/L02\.pre\.npy: a byte differs .* delete .*00000"):
        plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    shutil.rmtree(array.parent)
    assert plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS).verify() == []


def test_a_shard_of_another_models_store_is_refused(model, gpt2, tokenizer, tmp_path):
    for name, each in (("store", model), ("other", plm.wrap(gpt2(seed=1), tokenizer, name="small-gpt2"))):
        plm.capture(each, TEXTS, to=tmp_path / name, **WAYS)
    shutil.rmtree(tmp_path / "store/shards/00001")
    shutil.copytree(tmp_path / "other/shards/00001", tmp_path / "store/shards/00001")
    (line,) = reader.problems(tmp_path / "store")
    assert "shards/00001: a shard of another store" in line
    for use in (plm.open_store, lambda path: plm.capture(model, TEXTS, to=path, **WAYS)):
        with pytest.raises(plm.PolytopeError, match="00001: a shard of another store"):
            use(tmp_path / "store")


def test_a_store_of_format_1_opens_and_says_what_cannot_be_checked(model, tmp_path, caplog):
    new = plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    manifest = {**new.manifest, "format": 1}
    (tmp_path / "store/manifest.json").write_bytes(layout.dump(manifest))
    (tmp_path / "store/manifest.sha256").write_bytes(layout.manifest_sum(layout.dump(manifest)))
    for number in (0, 1, 2):
        shard = tmp_path / f"store/shards/0000{number}"
        record = replace(layout.read_record(shard, new.manifest), manifest=None)
        (shard / "shard.json").write_bytes(record.to_bytes())
    old = plm.open_store(tmp_path / "store")
    assert "format 1: its shards do not name their manifest" in caplog.text
    assert old.verify() == []
    np.testing.assert_array_equal(old.packed(2), new.packed(2))
    with pytest.raises(plm.PolytopeError, match="was written with format 1, this run has 2"):
        plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": [0]}, "sites"),
        ({"keep": []}, "keep"),
        ({"keep_dtype": "float16"}, "keep_dtype"),
        ({"tokens": "random:3"}, "tokens"),
        ({"seed": 1}, "seed"),
        ({"bos": True}, "bos"),
        ({"batch_tokens": 512}, "batch_tokens"),
        ({"max_length": 32, "min_context": 16}, "max_length"),
        ({"shard_documents": 3}, "shard_documents"),
    ],
)
def test_a_run_with_other_settings_is_refused_and_nothing_is_lost(model, whole, tmp_path, options, named):
    plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    with pytest.raises(plm.PolytopeError, match=rf"was written with {named}\b.* this run has .*another --out") as error:
        plm.capture(model, TEXTS, to=tmp_path / "store", **(WAYS | options))
    assert "\n" not in str(error.value)
    assert tree(tmp_path / "store") == whole


def test_another_model_dtype_attention_or_thread_count_is_refused(model, gpt2, tokenizer, whole, tmp_path):
    plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    eager = gpt2()
    eager.set_attn_implementation("eager")
    others = {
        "revision": plm.wrap(gpt2(seed=1), tokenizer, name="small-gpt2"),
        "model": plm.wrap(gpt2(), tokenizer, name="other"),
        "dtype": plm.wrap(gpt2().double(), tokenizer, name="small-gpt2"),
        "attention": plm.wrap(eager, tokenizer, name="small-gpt2"),
    }
    for named, other in others.items():
        with pytest.raises(plm.PolytopeError, match=f"was written with {named} "):
            plm.capture(other, TEXTS, to=tmp_path / "store", **WAYS)
    torch.set_num_threads(2)
    try:
        with pytest.raises(plm.PolytopeError, match="was written with threads 1, this run has 2"):
            plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    finally:
        torch.set_num_threads(1)
    assert tree(tmp_path / "store") == whole


def test_a_difference_deep_in_the_settings_is_named():
    assert writer.first_difference({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}) == ("a.b.1.c", 2, 3)
    assert writer.first_difference({"a": 1}, {"a": True}) == ("a", 1, True)
    assert writer.first_difference({"a": [1]}, {"a": [1]}) is None


def test_two_writers_at_once(model, tmp_path):
    manifest = plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS).manifest
    with StoreWriter(tmp_path / "store", manifest, (1, 2)):
        for part in [(1, 2), (1, 1), (2, 3)]:
            with pytest.raises(plm.PolytopeError, match="another capture is writing this store"):
                StoreWriter(tmp_path / "store", manifest, part).__enter__()


def test_writers_of_two_parts_work_at_once_and_a_process_may_be_the_other_writer(model, whole, tmp_path):
    plm.capture(model, TEXTS, to=tmp_path / "store", part=(3, 3), **WAYS)
    manifest = layout.read_manifest(tmp_path / "store")
    code = (
        "import sys; from pathlib import Path; from polytope_lm.codes.store import layout; "
        "from polytope_lm.codes.store.writer import StoreWriter; p = Path(sys.argv[1]); "
        "w = StoreWriter(p, layout.read_manifest(p), (1, 3)); w.__enter__(); print('in', flush=True); "
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "store"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"in\n"
    with pytest.raises(plm.PolytopeError, match="another capture"):
        StoreWriter(tmp_path / "store", manifest, (1, 3)).__enter__()
    plm.capture(model, TEXTS, to=tmp_path / "store", part=(2, 3), **WAYS)
    other.kill()  # its lock ends with it
    other.wait()
    other.stdin.close()
    other.stdout.close()
    plm.capture(model, TEXTS, to=tmp_path / "store", part=(1, 3), **WAYS)
    assert tree(tmp_path / "store") == whole


@pytest.mark.parametrize(("call", "passes"), [("pwrite", 0), ("pwrite", 9), ("fsync", 0), ("fsync", 15)])
def test_a_full_disk_is_one_line_and_loses_nothing(model, whole, tmp_path, monkeypatch, call, passes):
    real, passed = getattr(os, call), []

    def full(*args):
        passed.append(1)
        if len(passed) > passes:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(plm.PolytopeError, match="the disk is full: free some space; whatever was written is kept"):
            plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    left = tree(tmp_path / "store")
    assert all(whole[name] == content for name, content in left.items() if name in whole)
    assert any(name.startswith("shards/00000/") for name in left) == (passes > 0)
    plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    assert tree(tmp_path / "store") == whole


def test_a_directory_that_cannot_be_written_is_one_line(model, tmp_path):
    plm.capture(model, TEXTS, to=tmp_path / "store", part=(1, 2), **WAYS)
    before = tree(tmp_path / "store")
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    try:
        if user == 0:  # root may write anywhere
            for parent in tmp_path.parents[:2]:
                parent.chmod(0o755)
            os.seteuid(65534)
        for name in ("store", "new"):
            with pytest.raises(plm.PolytopeError, match="can't be written: choose another or change") as error:
                plm.capture(model, TEXTS, to=tmp_path / name, **WAYS)
            assert "\n" not in str(error.value)
    finally:
        os.seteuid(user)
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(0o755)
    assert tree(tmp_path / "store") == before


@pytest.mark.parametrize("name", ["thesis.docx", "manifest.json", "shards/00000/x"])
def test_a_directory_with_something_else_in_it_is_refused(model, tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(plm.PolytopeError, match=r"is no store|damaged|no such file in the store"):
        plm.capture(model, TEXTS, to=tmp_path, **WAYS)
    assert tree(tmp_path) == before
    with pytest.raises(plm.PolytopeError, match="not a directory"):
        plm.capture(model, TEXTS, to=tmp_path / name, **WAYS)


def test_shards_of_which_nothing_is_kept(model, tmp_path):
    texts = ["short", "tiny", " ".join(SENTENCES[:2]), "wee", "small"]
    store = plm.capture(model, texts, to=tmp_path / "store", tokens="every:3,skip:10", shard_documents=1, keep=["x"])
    assert store.shards["rows"].tolist() == [0, 0, 3, 0, 0]
    assert store.verify() == []
    memory = plm.encode(model, texts, tokens="every:3,skip:10", keep=["x"])
    np.testing.assert_array_equal(store.packed(1), memory.packed(1))
    np.testing.assert_array_equal(store.activations("x", 1), memory.activations("x", 1))
    ways = {"tokens": "every:3,skip:10", "shard_documents": 1, "part": (1, 3)}
    nothing = plm.capture(model, texts, to=tmp_path / "none", **ways)
    assert len(nothing) == 0
    assert nothing.bits(0).shape == (0, 96)
    assert nothing.verify() == [f"{tmp_path}/none: not finished: run the capture again"]


def test_a_store_of_many_shards_is_read_with_few_open_files(model, tmp_path):
    texts = [f"Text number {i} of many." for i in range(330)]
    plm.capture(model, texts, to=tmp_path / "store", layers=[0], keep=["h"], shard_documents=1)
    code = (
        "import resource, sys, numpy as np, polytope_lm as plm\n"
        "from polytope_lm.codes.overview import overview\n"
        "s = plm.open_store(sys.argv[1]); s.tokens; s.nearest(0, 3); s.hamming([0], [1])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "s = plm.open_store(sys.argv[1]); s.tokens; s.nearest(0, 3); s.hamming([0], [1])\n"
        "p = s.packed(0); b = s.bits(0); h = s.activations('h', 0); o = overview(s)\n"
        "print(len(s.shards), len(p), b.shape[1], o.layers[0].tokens, s.verify(), s.rates(0).sum() > 0)\n"
        "s.joined().packed(); s.code(5); s.select(np.arange(len(s))[::-1])\n"
        "from typer.testing import CliRunner; from polytope_lm.cli import app\n"
        "said = CliRunner().invoke(app, ['info', sys.argv[1]]); print(said.exit_code, f'{len(s):,}' in said.stdout)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "store"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-600:]
    tokens = len(plm.open_store(tmp_path / "store"))
    assert done.stdout.split() == ["330", str(tokens), "96", str(tokens), "[]", "True", "0", "True"]


def test_rows_are_read_from_the_shards_that_hold_them(model, tmp_path, monkeypatch):
    store = plm.capture(model, TEXTS, to=tmp_path / "store", **WAYS)
    order = np.random.default_rng(0).integers(0, len(store), 50)
    for name in (None, "h"):
        whole = store.packed(2) if name is None else store.activations(name, 2)
        np.testing.assert_array_equal(store.rows(store.site(2), order, name), whole[order])
    opened = []
    real = layout.mapped
    monkeypatch.setattr(layout, "mapped", lambda path, *a: (opened.append(path), real(path, *a))[1])
    store.rows(store.site(2), np.array([0, 1]))
    assert [path.parent.name for path in opened] == ["00000"]


def test_a_store_of_many_shards_needs_few_descriptors(model, tmp_path):
    """Opening, info, rows of all shards and every checksum, within 64 descriptors more than there were."""
    resource = pytest.importorskip("resource")
    texts = [f"{i} words of text" for i in range(80)]
    written = plm.capture(model, texts, to=tmp_path / "store", layers=[0, 1], keep=["h"], shard_documents=1)
    assert len(written.shards) == 80
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 64, before[1]))
    try:
        store = plm.open_store(tmp_path / "store")
        assert str(store)
        assert store.verify() == []
        last_rows = np.flatnonzero(np.diff(store.tokens["document"], append=-1))
        kept = store.bits(1)[last_rows]
        whole = store.packed(0)
        assert len(whole) == len(store)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(kept) == 80
