"""Documents: every source against what is written in it, every mistake against its one line."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import polytope_lm as plm
from polytope_lm.documents import Document, Documents, Span, documents
from polytope_lm.errors import PolytopeError

SHARED = Path(__file__).parents[2] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the development data, which are not shipped")


@pytest.fixture
def write(tmp_path):
    def put(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put


def texts(source, **options):
    return [document.text for document in documents(source, **options)]


def refused(source, pattern, **options):
    """The error of reading a source: one line, no traceback inside."""
    with pytest.raises(PolytopeError, match=pattern) as caught:
        list(documents(source, **options))
    assert "\n" not in str(caught.value)


# what a document is


@pytest.mark.parametrize(
    "spans",
    [
        (Span(0, 9, {}),),
        (Span(1, 1, {}),),
        (Span(-1, 1, {}),),
        (Span(0, 2, {}), Span(1, 3, {})),
        (Span(2, 3, {}), Span(0, 1, {})),
        (Span(0, 1, {}, "sentence"),),
    ],
)
def test_spans_that_make_no_sense_are_refused(spans):
    with pytest.raises(PolytopeError, match="document 'd'"):
        Document("d", "abcd", {}, spans)


def test_words_and_regions_may_overlap_each_other():
    word, region = Span(1, 2, {"a": "x"}), Span(0, 4, {"b": "y"}, "region")
    document = Document("d", "abcd", {}, (region, word))
    assert (document.words, document.regions) == ((word,), (region,))


# collections


def test_the_package_and_the_function_have_one_name():
    assert texts(["a"]) == [d.text for d in plm.documents(["a"])]
    assert plm.documents.Document is Document


def test_repeated_and_blank_texts_are_left_out_counted_and_said_once(caplog):
    found = documents(["a", "b", "a", " \n", "a"])
    with caplog.at_level(logging.WARNING):
        assert [d.text for d in found] == ["a", "b"]
        assert [d.text for d in found] == ["a", "b"]
    assert [r.getMessage() for r in caplog.records] == [
        "5 texts: 2 documents, 2 repeated and 1 blank left out"
    ]
    assert (found.tally.documents, found.tally.repeated, found.tally.blank) == (2, 2, 1)
    assert repr(found) == "Documents(5 texts: 2 documents, 2 repeated and 1 blank left out)"


def test_the_digest_is_that_of_the_texts_in_order():
    digests = b"".join(hashlib.sha256(t.encode()).digest() for t in ("a", "é"))
    assert documents(["a", "é", "a"]).sha256 == hashlib.sha256(digests).hexdigest()
    assert documents(["é", "a"]).sha256 != documents(["a", "é"]).sha256


def test_a_pass_that_stops_early_leaves_no_counts():
    found = documents(["a", "b"])
    next(iter(found))
    assert repr(found) == "Documents(2 texts)"
    assert found.tally.documents == 2


def test_a_limit_counts_what_is_handed_out():
    found = documents(["a", "a", "b", "c"], max_documents=2)
    assert [d.text for d in found] == ["a", "b"]
    assert found.describe() == "4 texts; first 2 documents"
    assert texts(documents(["a", "b"]), max_documents=1) == ["a"]
    with pytest.raises(PolytopeError, match="max_documents=0"):
        documents(["a"], max_documents=0)


def test_reading_is_lazy(write):
    path = write("x.jsonl", '{"text": "a"}\nbroken\n')
    assert next(iter(documents(path))).text == "a"
    assert texts(path, max_documents=1) == ["a"]
    refused(path, "line 2")


def test_documents_pass_through():
    found = documents(["a"])
    assert documents(found) is found
    with pytest.raises(PolytopeError, match="text_column='x' means nothing"):
        documents(found, text_column="x")


def test_lists_of_strings_documents_and_rows():
    document = Document("mine", "b", {"g": "1"})
    found = list(documents(["a", document, {"id": 7, "text": "c", "l": 3}], label_columns=["l"]))
    assert [(d.id, d.text, d.labels) for d in found] == [
        ("0", "a", {}),
        ("mine", "b", {"g": "1"}),
        ("7", "c", {"l": "3"}),
    ]
    refused([b"a"], "item 0 of the list is of type bytes")
    refused((x for x in "ab"), "cannot be read twice")
    refused([Document("d", "a"), Document("d", "b")], "'d' occurs twice")


def test_a_lone_surrogate_is_no_text(write):
    refused(["a\ud800"], r"character 1 is the lone surrogate U\+D800")
    rows = '{"text": "fine"}\n{"text": "a\\ud800", "kind": "b"}\n'
    refused(write("x.jsonl", rows), r"x\.jsonl, line 2: text, character 1 is the lone surrogate U\+D800")
    rows = '{"text": "a", "kind": "\\udc00"}\n'
    refused(write("y.jsonl", rows), r"y\.jsonl, line 1: kind, character 0 .*U\+DC00", label_columns="kind")


@pytest.mark.parametrize("source", [[], ["", " "]])
def test_a_source_of_nothing_is_refused(source):
    refused(source, "no document with text")


# text


def test_a_text_file_is_a_document(write):
    path = write("a.txt", "\ufeffone\r\n\r\ntwo é\n")
    (document,) = documents(path)
    assert (document.id, document.text) == ("a.txt", "one\n\ntwo é\n")
    assert documents(str(path)).describe() == "a.txt"


def test_paragraphs_of_a_text_file(write):
    path = write("a.txt", "\none\nmore\n \t\n\ntwo\n\n")
    assert [(d.id, d.text) for d in documents(path, split="blank-lines")] == [
        ("a.txt#2", "one\nmore"),
        ("a.txt#6", "two"),
    ]
    assert documents(path, split="blank-lines").describe() == "a.txt; split at blank lines"
    refused(path, "split='lines' is unknown", split="lines")


@given(st.lists(st.sampled_from(["a\n", "b\n", "\n", "  \n"]), max_size=12))
def test_paragraphs_lose_no_line(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("p") / "a.txt"
    path.write_text("".join(lines))
    from polytope_lm.documents.files import File, paragraphs

    found = [line for d in paragraphs(File(path, "a")) for line in d.text.split("\n")]
    assert found == [line.strip("\n") for line in lines if line.strip()]


def test_a_directory_is_read_in_order_without_links_and_hidden_files(write, tmp_path, caplog):
    write("d/b.txt", "b")
    write("d/a/z.txt", "z")
    write("d/.hidden.txt", "no")
    write("d/.git/x.txt", "no")
    write("d/notes.bin", "no")
    write("secret.txt", "secret")
    (tmp_path / "d" / "link.txt").symlink_to(tmp_path / "secret.txt")
    write("outside/c.txt", "outside")
    (tmp_path / "d" / "linked").symlink_to(tmp_path / "outside")
    with caplog.at_level(logging.WARNING):
        found = list(documents(tmp_path / "d"))
    assert [(d.id, d.text) for d in found] == [("a/z.txt", "z"), ("b.txt", "b")]
    assert "2 symbolic links passed over" in caplog.text
    assert documents(tmp_path / "d").describe() == "d"


def test_mistakes_about_paths(write, tmp_path):
    refused("no such thing", "no file or directory")
    refused("a text " * 1000, "no path that can be read.*in a list")
    refused("two\nlines", "in a list")
    refused("", "empty string")
    refused(write("x.bin", "a"), "unknown ending '.bin'")
    refused(write("noend", "a"), "unknown ending")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no file that can be read")
    refused(write("empty.txt", ""), "no document with text")
    os.mkfifo(tmp_path / "pipe.txt")
    refused(tmp_path / "pipe.txt", "not a regular file")
    write("mix/a.txt", "a")
    write("mix/b.csv", "text\nb")
    refused(tmp_path / "mix", "files of several kinds")


def test_wrong_encoding_has_its_line_and_byte(write):
    refused(write("x.txt", b"fine\ncaf\xe9\n"), "x.txt, line 2: byte 0xe9 is not UTF-8")
    refused(write("x.csv", b"text\ncaf\xe9\n"), "line 2")
    refused(write("x.jsonl", b'{"text": "caf\xe9"}'), "line 1")
    refused(write("x.txt", "hello".encode("utf-16")), "line 1: byte 0xff")


@pytest.mark.parametrize(
    "option", [{"text_column": "a"}, {"label_columns": "a"}, {"header": False}, {"senses": True}]
)
def test_an_option_that_a_text_cannot_use_is_refused(write, option):
    refused(write("x.txt", "a"), "means nothing|no file of senses", **option)


# tables


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


# treebanks


def word(number, form, tag="X", misc="_", lemma="_"):
    return f"{number}\t{form}\t{lemma}\t{tag}\t_\t_\t0\troot\t_\t{misc}\n"


def blank(number, form, misc="_"):
    return f"{number}\t{form}\t_\t_\t_\t_\t_\t_\t_\t{misc}\n"


def test_conllu(write):
    content = (
        "# newdoc id = email-1\n# sent_id = 1\n"
        + word(1, "Hi", "INTJ", "SpaceAfter=No", "hi")
        + word(2, "!", "PUNCT")
        + "\n"
        + blank("1-2", "Don't", "SpaceAfter=No")
        + word(1, "Do", "AUX")
        + word(2, "n't", "PART")
        + word(3, ".", "PUNCT")
        + "\n# newdoc\n"
        + blank("1-2", "du")
        + word(1, "de", "ADP")
        + word(2, "le", "DET")
        + word(3, "_", "SYM", lemma="_")
        + "\n"
    )
    first, second = documents(write("x.conllu", content))
    assert (first.id, first.text, first.labels) == ("email-1", "Hi! Don't.", {"genre": "email"})
    got = [(first.text[s.start : s.end], s.labels["upos"]) for s in first.spans]
    assert got == [("Hi", "INTJ"), ("!", "PUNCT"), ("Do", "AUX"), ("n't", "PART"), (".", "PUNCT")]
    assert first.spans[0].labels == {"upos": "INTJ", "deprel": "root", "lemma": "hi", "form": "Hi"}
    assert (second.text, second.labels) == ("du _", {})
    assert second.spans[0].labels["upos"] == "ADP+DET"
    assert second.spans[0].labels["form"] == "du"
    assert second.spans[1].labels["lemma"] == "_"


def test_conllu_without_newdoc_is_one_document_and_empty_nodes_are_not_in_the_text(write):
    content = (
        word(1, "a") + "1.1\tghost\t_\t_\t_\t_\t_\t_\t_\t_\n" + word(2, "b") + "\n" + word(1, "c") + "\n"
    )
    assert texts(write("x.conllu", content)) == ["a b c"]


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (word(1, "a") + "\n2 b c\n\n", "x.conllu, line 3: 1 columns where CoNLL-U has 10"),
        ("# newdoc\n1\ta\n\n", "line 2: 2 columns where CoNLL-U has 10"),
        ("one\ta\t_\t_\t_\t_\t_\t_\t_\t_\n\n", "line 1: the sentence is not CoNLL-U"),
        (blank("1-3", "abc") + word(1, "a") + "\n", "line 1: word 'abc' ends after the sentence"),
        ("", "no document with text"),
    ],
)
def test_bad_conllu_has_its_line(write, content, pattern):
    refused(write("x.conllu", content), pattern)


@shared
def test_a_treebanks_text_is_the_one_that_it_states():
    path = SHARED / "treebank" / "en_ewt-ud-dev.conllu"
    stated, at = "", 0
    for line in path.read_text().splitlines():
        if line.startswith("# text = "):
            stated += line.removeprefix("# text = ")
    found = list(documents(path))
    raw = documents(path)._read()
    assert "".join("".join(d.text.split()) for d in raw) == "".join(stated.split())
    assert {d.labels["genre"] for d in found} == {"weblog", "newsgroup", "email", "reviews", "answers"}
    for document in found:
        for span in document.spans:
            at += document.text[span.start : span.end].lower() == span.labels["form"].lower()
    assert at == sum(len(d.spans) for d in found)


# senses


@pytest.fixture
def senses(write):
    write("w/classes_map.txt", '{"0": "bass_fish", "1": "bass_sound"}')
    write("w/test.gold.txt", "0\n1\n")
    return write("w/test.data.txt", "1\ta bass swims\n2\tplays the bass .\n")


def test_senses(senses):
    found = list(documents(senses))
    assert [d.text for d in found] == ["a bass swims", "plays the bass ."]
    assert [d.text[s.start : s.end] for d in found for s in d.spans] == ["bass", "bass"]
    assert [s.labels for d in found for s in d.spans] == [
        {"sense": "bass_fish", "form": "bass"},
        {"sense": "bass_sound", "form": "bass"},
    ]
    assert [d.id for d in documents(senses.parent)] == ["test.data.txt#1", "test.data.txt#2"]
    assert len(texts(senses, senses=False)) == 1


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("test.data.txt", "1\ta bass\n9\tb bass\n", "test.data.txt, line 2: '9' is no position"),
        ("test.data.txt", "x\ta bass\n1\tb bass\n", "line 1: 'x' is no position"),
        ("test.data.txt", "1\ta bass\n", "test.data.txt: ends before line 2"),
        ("test.gold.txt", "0\n", "test.gold.txt: ends before line 2"),
        ("test.gold.txt", "0\n7\n", r"test.gold.txt, line 2: sense '7' is not in classes_map.txt \(0, 1\)"),
        ("classes_map.txt", "{", "classes_map.txt: not JSON"),
        ("classes_map.txt", "[1]", "classes_map.txt: must map"),
    ],
)
def test_bad_senses_have_their_line(senses, name, content, pattern):
    (senses.parent / name).write_text(content)
    refused(senses, pattern)


def test_senses_without_names_and_without_gold(senses):
    (senses.parent / "classes_map.txt").unlink()
    assert [s.labels["sense"] for d in documents(senses) for s in d.spans] == ["0", "1"]
    (senses.parent / "test.gold.txt").unlink()
    assert len(texts(senses)) == 1  # a text like any other
    refused(senses, "no file of senses test.gold.txt beside it", senses=True)


@shared
def test_every_target_of_the_senses_is_a_word_of_its_name():
    found = list(documents(SHARED / "senses" / "bass"))
    assert len(found) > 1000
    assert all(s.labels["sense"].startswith("bass_") and len(d.spans) == 1 for d in found for s in d.spans)


# hub data sets


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
    refused(f"hub:{tmp_path / 'news'}#test", "Bad split: test")


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


# the built-in sample


def test_the_sample_is_the_topics_grouped():
    found = documents("sample")
    assert {d.text for d in found} == set(topics.values())
    groups = [d.labels["group"] for d in found if d.labels]
    assert min(groups.count(g) for g in groups) >= 5
    assert len(set(groups)) >= 5
    assert len(found.sha256) == 64
    refused("sample", "header=False means nothing", header=False)


def test_the_samples_classes_cover_its_text_and_hold_what_they_say():
    share = dict.fromkeys(("prose", "code", "literal"), 0)
    for document in documents("sample"):
        spans = document.spans
        outside = [document.text[a.end : b.start] for a, b in pairwise(spans)]
        assert not "".join(outside).strip()
        assert document.text[: spans[0].start].strip() == ""
        assert document.text[spans[-1].end :].strip() == ""
        for span in spans:
            piece = document.text[span.start : span.end]
            share[span.labels["class"]] += len(piece)
            assert span.kind == "region"
            if "::=" in piece or piece.lstrip().startswith(">>>"):
                assert span.labels["class"] in {"code", "literal"}
    assert min(share.values()) > 0.05 * sum(share.values())


def test_the_samples_classes_on_a_page_known_by_heart():
    text = topics["lambda"]
    (document,) = [d for d in documents("sample") if d.id == "lambda"]
    assert document.labels == {"group": "expression"}

    def kind(piece):
        at = text.index(piece)
        return next(s.labels["class"] for s in document.spans if s.start <= at < s.end)

    assert kind("lambda_expr ::=") == "code"
    assert kind("def <lambda>(parameters)") == "code"
    assert kind("Lambda expressions (sometimes") == "prose"
    assert kind("Note that functions") == "prose"
    assert kind('"lambda parameters: expression"') == "literal"


def test_a_file_called_sample_needs_a_separator(write, monkeypatch):
    path = write("sample/a.txt", "mine")
    monkeypatch.chdir(path.parents[1])
    assert texts("./sample") == ["mine"]
    assert len(texts("sample")) > 50


def test_documents_is_a_type_for_annotations():
    assert isinstance(documents(["a"]), Documents)
    assert json.loads(json.dumps(documents(["a"]).describe())) == "1 text"
