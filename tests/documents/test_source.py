"""Text files and directories: order, paragraphs, and mistakes about paths."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import refused

from polytope_lm.documents import documents


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
    from polytope_lm.documents.source import paragraphs
    from polytope_lm.files import File

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


@pytest.mark.parametrize("option", [{"text_column": "a"}, {"label_columns": "a"}, {"header": False}, {"senses": True}])
def test_an_option_that_a_text_cannot_use_is_refused(write, option):
    refused(write("x.txt", "a"), "means nothing|no file of senses", **option)
