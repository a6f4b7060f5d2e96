"""Tables: JSON lines, CSV and Parquet, each mistake with its file and line."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import refused, texts

from polytope_lm.documents import documents


def test_json_lines(write):
    path = write(
        "x.jsonl", '{"id": "p", "text": "a", "l": "x"}\n\n{"id": 2, "text": "b\\u0000", "l": null}\n'
    )
    found = list(documents(path, label_columns="l"))
    assert [(d.id, d.text, d.labels) for d in found] == [("p", "a", {"l": "x"}), ("2", "b\0", {})]


@pytest.mark.parametrize(
    ("row", "pattern"),
    [
        ('{"text": "a"', "line 17: malformed JSON at character"),
        ('["a"]', "line 17: a JSON list, not an object"),
        ('{"body": "a"}', "line 17: no column 'text'; columns: body"),
        ('{"text": null, "l": 1}', "line 17: column 'text' is empty, not a text"),
        ('{"text": 3, "l": 1}', "line 17: column 'text' is of type int"),
        ('{"text": "a", "l": [1]}', "line 17: label column 'l' is of type list"),
        ('{"text": "a"}', "line 17: no column 'l'; columns: text"),
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
    not_utf8 = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    pq.write_table(pa.table({"text": not_utf8}), tmp_path / "z.parquet")
    refused(tmp_path / "z.parquet", "not readable as Parquet")
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
