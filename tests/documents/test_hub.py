"""Data sets of the hub, streamed and saved ones."""

from __future__ import annotations

import datasets
import pytest
from reading import refused, texts

from polytope_lm.documents import documents
from polytope_lm.errors import PolytopeError


@pytest.fixture
def table():
    features = datasets.Features(
        {"text": datasets.Value("string"), "topic": datasets.ClassLabel(names=["x", "y"])}
    )
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
    assert [d.labels for d in documents(tmp_path / "one", label_columns="topic")] == [
        {"topic": "y"},
        {"topic": "x"},
    ]
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


@pytest.mark.parametrize(
    "error", [ConnectionError("Couldn't reach it\nmore"), ValueError("Unknown split"), OSError()]
)
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
