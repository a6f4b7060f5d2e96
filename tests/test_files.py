"""Paths that users give, and files that may be anything; errors that stay one harmless line."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

from polytope_lm import files
from polytope_lm.errors import PolytopeError, brief, visible


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.expand("~/x") == tmp_path / "x"
    assert files.expand(Path("~/x")) == tmp_path / "x"
    assert files.expand("a~/x") == Path("a~/x")


@pytest.mark.parametrize("given", ["", "a\0b", 3, None, b"bytes", "~nobody-of-this-name/x"])
def test_what_is_no_path_is_refused_by_name(given):
    with pytest.raises(PolytopeError, match="to="):
        files.expand(given, "to")


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "real").write_bytes(b"\xef\xbb\xbftext")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "fifo")
    assert files.read_text(tmp_path / "link", "note", 100) == "text"
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing", "/dev/zero", tmp_path / "a\0b"):
        with pytest.raises(PolytopeError, match="note"):
            files.read_text(path, "note", 100)


def test_size_and_encoding_are_checked(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 101)
    with pytest.raises(PolytopeError, match="100 bytes"):
        files.read_bytes(path, "note", 100)
    assert len(files.read_bytes(path, "note", 101)) == 101
    path.write_bytes(b"ab\xff")
    with pytest.raises(PolytopeError, match="byte 2"):
        files.read_text(path, "note", 100)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "1" * 5000, '{"a": }'])
def test_json_that_cannot_be_read_is_one_line(text):
    with pytest.raises(PolytopeError, match="here"):
        files.parse_json(text, "here")


def test_names_do_not_lead_out_of_a_directory(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    assert files.inside(root, "a/b", "file") == root / "a/b"
    for name in ("../secret", str(tmp_path / "secret"), "link", "a/../../secret"):
        with pytest.raises(PolytopeError, match="outside"):
            files.inside(root, name, "file")


def test_an_error_is_one_line_that_commands_no_terminal():
    error = PolytopeError("a\nb\r\x1b[31m\u202eevil\ud800")
    assert str(error) == "a⏎b\\u000d\\u001b[31m\\u202eevil\\ud800"
    assert str(error).encode() == str(pickle.loads(pickle.dumps(error))).encode()
    assert visible("👩\u200d👧") == "👩\u200d👧"


def test_a_brief_repr_is_bounded_whatever_the_value():
    nested: list = []
    for _ in range(sys.getrecursionlimit() * 2):
        nested = [nested]
    for value in (nested, "x" * 10**6, {i: i for i in range(10**5)}, 10**4000, "\u202e"):
        assert len(brief(value)) < 200
        assert "\u202e" not in brief(value)
