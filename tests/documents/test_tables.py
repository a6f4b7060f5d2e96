"""Tables: JSON lines, CSV and Parquet, each mistake with its file and line."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import refused, texts

import polytope_lm as plm
from polytope_lm.documents import Document, documents
from polytope_lm.errors import PolytopeError


def test_json_lines(write):
    path = write("x.jsonl", '{"id": "p", "text": "a", "l": "x"}\n\n{"id": 2, "text": "b\\u0000", "l": null}\n')
    found = list(documents(path, label_columns="l"))
    assert [(d.id, d.text, d.labels) for d in found] == [("p", "a", {"l": "x"}), ("2", "b\0", {})]


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        ('{"text": "a"', "line 17: malformed JSON at character"),
        ('["a"]', "line 17: a JSON list, not an object"),
        ('{"body": "a"}', "line 17: no column 'text'; the row has: body;.*text_column"),
        ('{"text": null, "l": 1}', "line 17: column 'text' is empty, not a text"),
        ('{"text": 3, "l": 1}', "line 17: column 'text' is of type int"),
        ('{"text": "a", "l": [1]}', "line 17: label column 'l' is of type list"),
        ("[" * 100_000, "line 17: JSON that cannot be read"),
        ("1" * 5000, "line 17: JSON that cannot be read"),
    ],
)
def test_a_bad_json_line_has_its_number(write, row, pattern):
    good = "".join(f'{{"text": "t{i}", "l": 1}}\n' for i in range(16))
    refused(write("x.jsonl", good + row + "\n"), pattern, text_column="text", label_columns="l")


def test_csv_with_header_and_quotes(write):
    path = write("x.csv", 'text,label\n"a, ""b""\nc",1\n\nd,\n')
    found = list(documents(path, label_columns=["label"]))
    assert [(d.text, d.labels) for d in found] == [('a, "b"\nc', {"label": "1"}), ("d", {})]
    assert found[0].id == hashlib.sha256(b"x.csv\x002").hexdigest()[:16]


def test_csv_without_header(write):
    path = write("x.csv", '"3","title","body"\n"4","other","more"\n')
    found = documents(path, header=False, text_column="2", label_columns=["0"])
    assert [(d.text, d.labels) for d in found] == [("body", {"0": "3"}), ("more", {"0": "4"})]
    assert found.describe() == "x.csv; text column 2; label columns 0; no header"


def test_tabs_and_the_only_column(write):
    assert texts(write("x.tsv", "text\tb\na, b\tc\n")) == ["a, b"]
    assert texts(write("x.csv", "body\na\n")) == ["a"]


def test_a_long_field_is_read(write):
    assert [len(t) for t in texts(write("x.csv", f'text\n"{"a" * 300_000}"\n'))] == [300_000]


def test_identifiers(write):
    path = write("x.csv", "id,text\n7,a\n7,b\n")
    refused(path, "'7' occurs twice")
    assert len({d.id for d in documents(path, id_column="")}) == 2
    assert [d.id for d in documents(write("y.csv", "id,key,text\n7,k,a\n"), id_column="key")] == ["k"]
    refused(write("z.csv", "id,text\n,a\n"), "id column 'id' is empty")


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("text,b\na,c\nd\n", "line 3: 1 fields where the first row has 2"),
        ('text,b\na,c\n"d,e\n', "line 3: malformed CSV"),
        ('text,b\n"a"x,c\n', "line 2: malformed CSV"),
        ("text,text\na,b\n", "two columns have one name"),
        ("a,b\nc,d\n", "which column is the text.*columns: a, b"),
        ("text\n", "no document with text"),
        ("", "no document with text"),
    ],
)
def test_bad_csv_has_its_line(write, content, pattern):
    refused(write("x.csv", content), pattern)


def test_parquet(tmp_path):
    table = pa.table(
        {"text": [f"t{i}" for i in range(3000)], "l": pa.array([0, None, 2] * 1000), "huge": [b"x"] * 3000}
    )
    pq.write_table(table, tmp_path / "x.parquet")
    found = list(documents(tmp_path / "x.parquet", label_columns="l"))
    assert [d.text for d in found] == table["text"].to_pylist()
    assert [d.labels for d in found[:3]] == [{"l": "0"}, {}, {"l": "2"}]
    refused(tmp_path / "x.parquet", "no column 'm'; columns: text, l, huge", label_columns="m")
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "y.parquet")
    refused(tmp_path / "y.parquet", "y.parquet, row 2: column 'text' is empty")


def test_a_broken_parquet_file(write, tmp_path):
    not_utf8 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"text": not_utf8}), tmp_path / "z.parquet")
    refused(tmp_path / "z.parquet", "z.parquet.*'text'.*0xff")
    refused(write("x.parquet", b"PAR1 not really"), "not readable as Parquet")
    refused(write("y.parquet", b""), "not readable as Parquet")


def test_columns_of_one_name_in_a_parquet_file(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "one name")


def test_a_directory_of_tables(write, tmp_path):
    write("t/a.jsonl", '{"text": "a"}')
    write("t/b.jsonl", '{"text": "b"}')
    assert texts(tmp_path / "t") == ["a", "b"]


def test_a_row_that_is_another_thing_is_named_and_a_missing_label_is_none(write):
    path = write("x.jsonl", '{"text":"a","id":"p"}\n{"error":"HTTP 429"}\n{"text":"b","id":"q"}\n')
    refused(path, r"x\.jsonl, line 2: no column 'text'; the row has: error;.*text_column")
    refused(write("y.jsonl", '{"error":"HTTP 429"}\n'), r"line 1: no column 'text'; the row has: error")
    rows = [{"text": "a", "topic": "x"}, {"text": "b"}, {"text": "c", "topic": None}]
    labels = [{"topic": "x"}, {}, {}]
    path = write("z.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for source in (path, rows, datasets.Dataset.from_list(rows), pd.DataFrame(rows)):
        assert [d.labels for d in documents(source, label_columns=["topic"])] == labels
    refused(path, "no row has a label 'topik'", label_columns=["topik"])


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.csv", "text;topic\nA river bank;n\nA, money bank;f\n", {}),
        ("b.csv", "text\ttopic\nA river bank\tn\nA, money bank\tf\n", {}),
        ("c.csv", "text|topic\nA river bank|n\nA, money bank|f\n", {}),
        ("d.tsv", 'text,topic\nA river bank,n\n"A, money bank",f\n', {}),
        ("e.csv", 'text,topic\nA river bank,n\n"A, money bank",f\n', {}),
        ("f.csv", "body;topic\nA river bank;n\nA, money bank;f\n", {"text_column": "body"}),
        ("g.csv", "A river bank;n\nA, money bank;f\n", {"text_column": "0", "header": False}),
        ("h.csv", "text;a, b;topic\nA river bank;1, 2;n\nA, money bank;3;f\n", {}),
    ],
)
def test_the_delimiter_is_found_and_said(write, caplog, name, content, options):
    found = documents(write(name, content), label_columns=["topic" if "header" not in options else "1"], **options)
    assert [(d.text, *d.labels.values()) for d in found] == [("A river bank", "n"), ("A, money bank", "f")]
    assert ("delimiter is the" in caplog.text) == (name != "e.csv")


def test_a_comma_stays_the_delimiter_where_it_is_one(write, caplog):
    assert texts(write("x.csv", "text,b\na; b,c; d\ne; f,g; h\n")) == ["a; b", "e; f"]
    assert texts(write("y.csv", "text\na; b\nc; d\n")) == ["a; b", "c; d"]
    assert not caplog.text


def test_quotation_marks_between_tabs_are_characters(write):
    assert texts(write("a.tsv", 'text\ty\n"open\t1\nmiddle\t2\nclose"\t3\n')) == ['"open', "middle", 'close"']
    assert texts(write("b.tsv", 'text\ty\n"Hello there\t1\r\nsecond\t2')) == ['"Hello there', "second"]
    assert texts(write("c.tsv", 'text\ty\n"Go," he said\t1\n"All"\t2\n')) == ['"Go," he said', '"All"']


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_pandas_writes_between_tabs_is_read_as_it_was(tmp_path, quoting):
    written = ['He said "hi"', '"', '"All of it"', "plain", "a 'b'"]
    pd.DataFrame({"text": written, "n": range(5)}).to_csv(tmp_path / "x.tsv", sep="\t", index=False, quoting=quoting)
    assert texts(tmp_path / "x.tsv") == written


def test_json_arrays_and_nesting(write):
    assert texts(write("x.json", '[{"text": "a"},\n {"text": "b"}]\n')) == ["a", "b"]
    refused(write("y.json", '[{"text": "a"},\n {"body": "b"}]\n'), "item 2: no column 'text'")
    deep = '{"text": "a", "l": ' + "[" * 5000 + "]" * 5000 + "}"
    refused(write("z.jsonl", deep + "\n"), "line 1: ", label_columns="l")


def test_a_label_is_written_as_a_string(tmp_path):
    rows = {
        "text": ["a", "b"],
        "int": [3, None],
        "float": [3.0, float("nan")],
        "bool": [True, None],
        "day": [dt.date(2020, 1, 31), None],
        "time": [dt.datetime(2020, 1, 31, 10, 0), None],  # noqa: DTZ001
        "string": ["007", ""],
    }
    expected = {
        "int": "3", "float": "3.0", "bool": "True", "day": "2020-01-31", "time": "2020-01-31 10:00:00",
        "string": "007",
    }  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "x.parquet")
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in rows.items()})
    listed = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    for source in (tmp_path / "x.parquet", frame, listed, datasets.Dataset.from_dict(rows)):
        found = [d.labels for d in documents(source, label_columns=list(expected))]
        assert found == [expected, {}]


def test_dates_out_of_range_are_one_line(tmp_path):
    far = pa.array([10**7], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"text": ["a"], "day": far}), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "x.parquet.*'day'", label_columns="day")


def test_a_frame_a_series_a_data_set(write):
    frame = pd.DataFrame({"body": ["a", "b", "c"], "n": [1, 2, np.int64(3)]}, index=["x", "y", "z"])
    found = documents(frame, text_column="body", label_columns="n")
    frame["body"] = "changed"
    assert [(d.id, d.text, d.labels["n"]) for d in found] == [("x", "a", "1"), ("y", "b", "2"), ("z", "c", "3")]
    assert found.describe() == "DataFrame of 3 rows; text column body; label columns n"
    refused(frame, "which column is the text.*columns: body, n")
    assert [d.id for d in documents(pd.DataFrame({"text": ["a", "b"]}))] == ["0", "1"]
    assert [(d.id, d.text) for d in documents(pd.Series({"p": "a", "q": "b"}))] == [("p", "a"), ("q", "b")]
    assert [(d.id, d.text) for d in documents(pd.Series(["a", "b"], index=[7, 7]))] == [("0", "a"), ("1", "b")]
    refused(pd.Series(["a", None]), "the Series, row '1'")
    assert texts(np.array(["a", "b"])) == ["a", "b"]
    features = datasets.Features({"text": datasets.Value("string"), "y": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "y": [1, 0]}, features=features)
    for source in (data, data.to_iterable_dataset()):
        assert [d.labels for d in documents(source, label_columns="y")] == [{"y": "yes"}, {"y": "no"}]


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        (b"hello", "bytes.*decode"),
        ({"text": "a"}, "dict.*row"),
        (Document("d", "a"), r"Document.*\[document\]"),
        (datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})}), "DatasetDict.*'train'"),
        (3, "int"),
        (None, "None"),
        ({"a"}, "set"),
        (np.zeros(3), "item 0.*float"),
    ],
)
def test_what_is_no_source_is_one_line_and_encode_says_the_same(model, source, pattern):
    refused(source, pattern)
    if not isinstance(source, Document):
        with pytest.raises(PolytopeError, match=pattern):
            plm.encode(model, source, layers=[0])


def test_tables_are_encoded_by_their_texts(model):
    frame = pd.DataFrame({"text": ["He sat", "on the bank", "He sat"]}, index=["p", "q", "r"])
    rows = frame.to_dict("records")
    plain = plm.encode(model, list(frame["text"]), layers=[0])
    for source in (frame, frame["text"], rows, datasets.Dataset.from_list(rows), documents(rows[:2]), iter(rows)):
        found = plm.encode(model, source, layers=[0])
        assert found.tokens["token"].tolist() == plain.tokens["token"].tolist()[: len(found.tokens)]
    assert set(plm.encode(model, frame, layers=[0]).tokens["document"]) <= {0, 1, 2, "p", "q", "r"}
