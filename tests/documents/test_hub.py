"""Data sets of the hub, streamed and saved ones."""

from __future__ import annotations

import gzip
import json
import os
import shutil

import datasets
import pytest
from reading import refused, texts

from polytope_lm.documents import documents
from polytope_lm.errors import PolytopeError


@pytest.fixture
def table():
    features = datasets.Features({"text": datasets.Value("string"), "topic": datasets.ClassLabel(names=["x", "y"])})
    return datasets.Dataset.from_dict({"text": ["a", "b"], "topic": [1, 0]}, features=features)


@pytest.mark.parametrize("name", ["document", "token", "position", "id", "index"])
def test_reserved_names_of_labels_are_refused_before_anything_is_read(write, name):
    with pytest.raises(PolytopeError, match=f"label column '{name}' has the name of a column"):
        documents(write("x.jsonl", "no JSON"), label_columns=["kind", name])


def test_a_directory_of_a_hub_data_set_is_streamed(table, tmp_path):
    (tmp_path / "news").mkdir()
    table.to_parquet(tmp_path / "news" / "train.parquet")
    found = documents(f"hub:{tmp_path / 'news'}", label_columns="topic")
    assert [(d.text, d.labels) for d in found] == [("a", {"topic": "y"}), ("b", {"topic": "x"})]
    assert [d.text for d in found] == ["a", "b"]
    assert found.describe() == "hub:news; label columns topic"
    refused(f"hub:{tmp_path / 'news'}", "no column 'nothing'; columns: text, topic", text_column="nothing")
    refused(f"hub:{tmp_path / 'news'}#test", "no split 'test'; splits: train")


def test_a_saved_data_set(table, tmp_path, caplog):
    table.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "two")
    assert [d.labels for d in documents(tmp_path / "one", label_columns="topic")] == [{"topic": "y"}, {"topic": "x"}]
    assert documents(tmp_path / "one").describe() == "one"
    assert not caplog.records
    assert texts(tmp_path / "two") == ["a", "b"]
    assert f"split 'train' of train, test; for another give hub:{tmp_path / 'two'}#SPLIT" in caplog.text
    assert documents(tmp_path / "two").describe() == "two#train"
    found = documents(f"hub:{tmp_path / 'two'}#test")
    assert [d.text for d in found] == ["b"]
    assert found.describe() == "hub:two#test"
    refused(f"hub:{tmp_path / 'two'}#dev", "no split 'dev'; splits: train, test")


def test_a_hub_stream_without_a_schema(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert texts(f"hub:{tmp_path / 'raw'}") == ["a", "b"]


def test_data_that_are_no_plain_tables_are_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    refused(f"hub:{tmp_path / 'pictures'}", "of kind 'imagefolder', not plain tables")


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach it\nmore"), ValueError("Unknown split"), OSError()])
def test_an_unreachable_hub_is_one_line(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    refused("hub:someone/thing", "hub:someone/thing: .*check name, split and network")


def test_names_of_the_hub_have_parts(monkeypatch):
    asked = []

    def load(name, config):
        asked.append((name, config))
        raise ValueError

    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    for name in ("a", "o/a:c", "o/a:c#s", "o/a#s"):
        refused(f"hub:{name}", "hub:")
    assert asked == [("a", None), ("o/a", "c"), ("o/a", "c"), ("o/a", None)]
    refused("hub:", "not a data set's name")
    refused("hub:a", "means nothing", split="blank-lines")


def test_both_ways_of_reading_files_give_the_same(tmp_path):
    """Nothing is re-typed: no missing value is made of NA, no number of 007, no time of a date."""
    contents = {
        "csv": 'text,country,code\n"Windhoek, say",NA,007\nOslo,NO,1e3\nnull,true,2020-01-01\n',
        "jsonl": '{"text":"2020-01-01","country":"NA","code":"007"}\n{"text":"x","country":null,"code":1.50}\n',
        "json": '[{"text": "a", "country": "NO"}, {"text": "b", "code": "010"}]',
    }
    for kind, content in contents.items():
        folder = tmp_path / kind
        folder.mkdir()
        (folder / f"train.{kind}").write_text(content)
        options = {"label_columns": ["country", "code"]}
        direct = list(documents(folder / f"train.{kind}", **options))
        assert list(documents(f"hub:{folder}", **options)) == direct
        assert list(documents(f"hub:{folder}#train", **options)) == direct
    direct = list(documents(tmp_path / "csv" / "train.csv", label_columns=["country", "code"]))
    assert [tuple(d.labels.values()) for d in direct] == [("NA", "007"), ("NO", "1e3"), ("true", "2020-01-01")]
    table = datasets.Dataset.from_dict(
        {"text": ["a", "b"], "y": [1, 0]},
        features=datasets.Features({"text": datasets.Value("string"), "y": datasets.ClassLabel(names=["n", "p"])}),
    )
    (tmp_path / "parquet").mkdir()
    table.to_parquet(tmp_path / "parquet" / "train.parquet")
    direct = list(documents(tmp_path / "parquet" / "train.parquet", label_columns="y"))
    assert [d.labels for d in direct] == [{"y": "p"}, {"y": "n"}]
    assert list(documents(f"hub:{tmp_path / 'parquet'}", label_columns="y")) == direct


def test_compressed_files_and_text_of_a_data_set_are_read(tmp_path):
    (tmp_path / "a").mkdir()
    with gzip.open(tmp_path / "a" / "train.csv.gz", "wt") as stream:
        stream.write("text;l\nx;007\n")
    assert [(d.text, d.labels) for d in documents(f"hub:{tmp_path / 'a'}", label_columns="l")] == [("x", {"l": "007"})]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "train.txt").write_text("one\ntwo\n")
    assert texts(f"hub:{tmp_path / 'b'}") == ["one", "two"]


@pytest.mark.parametrize("where", ["../secret.jsonl", "ABSOLUTE", "LINK", "sub/../../secret.jsonl"])
def test_a_data_set_reads_nothing_outside_its_directory(tmp_path, where):
    (tmp_path / "secret.jsonl").write_text('{"text": "secret"}\n')
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    named = {"ABSOLUTE": str(tmp_path / "secret.jsonl"), "LINK": "link.jsonl"}.get(where, where)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: {named}\n---\n")
    refused(f"hub:{folder}", "secret.jsonl' of README.md lies outside|link 'link.jsonl' lies outside")


@pytest.mark.parametrize("note", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize(
    "config",
    [
        {"data_files": "/**"},
        {"data_files": [{"split": "train", "path": ["a.csv", "/**"]}]},
        {"data_files": {"train": "../**"}},
        {"data_files": "zip://*::/a.zip"},
        {"data_files": "https://example.org/a.csv"},
        {"data_files": "*::a.zip"},
        {"data_dir": "../other"},
    ],
)
def test_a_pattern_that_leads_out_of_a_data_set_is_refused_before_files_are_looked_for(
    monkeypatch, tmp_path, note, config
):
    monkeypatch.setattr("datasets.load_dataset_builder", lambda *_: pytest.fail("files were looked for"))
    said = json.dumps({"configs": [{"config_name": "default", **config}]})
    (tmp_path / note).write_text(f"---\n{said}\n---\n" if note == "README.md" else said)
    refused(f"hub:{tmp_path}", f"{note} lies outside")


@pytest.mark.parametrize("card", ["{a: [", "- 3", "configs: [3]", "configs: {a: 3}"])
def test_a_damaged_card_is_one_line(tmp_path, card):
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    refused(f"hub:{tmp_path}", str(tmp_path))


def test_a_snapshot_of_the_hubs_cache_is_refused_with_the_cure(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b").write_text("text\none\n")
    snapshot = tmp_path / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "train.csv").symlink_to("../../blobs/0a1b")
    refused(f"hub:{snapshot}", f"link 'train.csv' lies outside .*cp -rL {snapshot} COPY")
    shutil.copytree(snapshot, tmp_path / "copy")
    assert texts(f"hub:{tmp_path / 'copy'}") == ["one"]


def test_a_saved_data_set_reads_nothing_outside_its_directory(table, tmp_path):
    table.save_to_disk(tmp_path / "secret")
    table.save_to_disk(tmp_path / "data")
    secret = next((tmp_path / "secret").glob("*.arrow"))
    state = json.loads((tmp_path / "data" / "state.json").read_text())
    for named in (f"../secret/{secret.name}", str(secret)):
        state["_data_files"] = [{"filename": named}]
        (tmp_path / "data" / "state.json").write_text(json.dumps(state))
        refused(tmp_path / "data", "lies outside")
    (tmp_path / "data" / "state.json").unlink()
    (tmp_path / "data" / "state.json").symlink_to(tmp_path / "secret" / "state.json")
    refused(f"hub:{tmp_path / 'data'}", "state.json.*lies outside")
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["../secret"]}')
    refused(f"hub:{tmp_path / 'both'}#../secret", "lies outside")


@pytest.mark.parametrize("state", ["{", "[]", '{"_data_files": 3}', '{"_data_files": [3]}', "[" * 100_000, "FIFO"])
def test_a_damaged_saved_data_set_is_one_line(table, tmp_path, state):
    table.save_to_disk(tmp_path / "data")
    path = tmp_path / "data" / "state.json"
    path.unlink()
    if state == "FIFO":
        os.mkfifo(path)
        (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    else:
        path.write_text(state)
    refused(tmp_path / "data", "data")


def test_home_in_the_name_of_a_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "train.csv").write_text("text\na\n")
    assert texts("hub:~/news") == texts("~/news") == texts("~/news/train.csv") == ["a"]
