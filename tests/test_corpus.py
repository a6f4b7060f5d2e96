"""What the corpus builder makes of each kind of file, and that no paragraph stands twice."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from analyses import corpus
from polytope_lm.errors import PolytopeError

SENTENCES = [
    "The first program reads a file from the disk and writes what it has found.",
    "A second sentence is here so that there are two of them in the text.",
    "It is not known who wrote this page, but it has been read by many people.",
]


def test_markup_gives_its_paragraphs_without_program_text():
    page = (
        f"<html><head><title>The title of a page</title></head><body><nav>{SENTENCES[2]}</nav><p>{SENTENCES[0]}</p>"
        f"<!-- {SENTENCES[2]} --><pre>int main;</pre><li>A <em>second</em>\n{SENTENCES[1][9:]}</li></body></html>"
    )
    assert [block for block in corpus.from_markup(page) if block] == SENTENCES[:2]


def test_plain_text_is_unwrapped_and_its_roles_are_taken_off():
    text = f".. note::\n\n{SENTENCES[0][:17]}\n{SENTENCES[0][18:]}\n\nSee :ref:`the index <genindex>` and ``ls``.\n"
    assert [b for b in corpus.from_text(text) if b] == [SENTENCES[0], "See the index and ls."]


def test_a_manual_page_gives_its_running_text():
    page = ".TH LS 1\n.SH NAME\nls \\- list\n.PP\nThe\n.B first\nprogram \\fIreads\\fP a file.\n"
    assert [b for b in corpus.from_manual_page(page) if b] == ["ls - list", "The first program reads a file."]


def test_perls_documentation_gives_its_paragraphs():
    pod = f"=head1 NAME\n\nThe B<first> C<< program >> reads L<a file|perlfunc>.\n\n    my $code;\n\n{SENTENCES[1]}\n"
    assert list(corpus.from_pod(pod)) == ["The first program reads a file.", SENTENCES[1]]


def test_wordnet_gives_a_line_a_synset():
    line = "00001740 03 n 02 entity 0 living_thing 1 001 ~ 00001930 n 0000 | that which is alive\n"
    assert list(corpus.from_wordnet(line)) == ["entity, living thing: that which is alive."]


def test_a_game_gives_what_is_spoken():
    assert list(corpus.from_game('[message]\nmessage= _ "Who goes ""there""?"\nid="x"')) == ['Who goes "there"?']


def test_a_dictionary_gives_its_entries_by_their_index():
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    first, second = (f"{s}\n\n" for s in SENTENCES[:2])
    number = lambda n: digits[n // 64] + digits[n % 64]  # noqa: E731
    index = f"b\t{number(len(first))}\t{number(len(second))}\na\tA\t{number(len(first))}\n"
    assert [b for b in corpus.from_dictionary((first + second).encode(), index.encode()) if b] == SENTENCES[:2]


def test_a_bible_module_gives_its_books():
    books = [f"<verse>{s}</verse>".encode() for s in SENTENCES]
    packed = [zlib.compress(book) for book in books]
    index, offset = b"", 0
    for book, data in zip(books, packed, strict=True):
        index += struct.pack("<III", offset, len(data), len(book))
        offset += len(data)
    assert list(corpus.from_sword(b"".join(packed), index)) == SENTENCES


def test_r_character_vectors_are_joined_to_paragraphs():
    lines = ["The first program reads", "a file from the disk.", "", "It ends."]
    record = b"".join(b"\x00\x04\x00\x09" + struct.pack(">i", len(x)) + x.encode() for x in lines)
    data = struct.pack(">i", len(record)) + zlib.compress(record)
    assert list(corpus.from_r(data)) == ["The first program reads a file from the disk.", "It ends."]


@pytest.mark.parametrize(
    ("block", "prose"),
    [
        (SENTENCES[0], True),
        ("Too short to be kept.", False),
        ("Dies ist ein deutscher Satz, und er darf hier nicht stehen bleiben.", False),
        ("alpha beta gamma delta epsilon zeta eta theta iota kappa.", False),
        ("for (i = 0; i < n; i++) { a[i] = b[i] + 1; } /* it is the end of the */;", False),
        (SENTENCES[0][:-1], False),  # no end of a sentence: a heading or a cell
    ],
)
def test_prose_is_told_from_the_rest(block, prose):
    assert corpus.is_prose(block) is prose


def archive(path, files: dict[str, bytes]) -> None:
    """Write a Debian package with `dpkg-deb`."""
    tree = path.parent / "tree"
    control = (
        f"Package: {path.name.split('_')[0]}\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
    )
    for name, data in {"DEBIAN/control": control.encode(), **files}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(tree), str(path)], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_packages_become_documents_with_no_paragraph_twice_and_the_same_bytes_again(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "HELD_OUT", 3)
    (tmp_path / "debs").mkdir()
    letters = [chr(97 + n // 15) + chr(97 + n % 15) for n in range(200)]
    own = [f"Page {x} of the manual says that the number {x}{x} is the one that you want." for x in letters]
    page = lambda texts: gzip.compress("\n\n".join(texts).encode())  # noqa: E731
    files = {f"usr/share/doc/xen-doc/{n}.txt.gz": page([*SENTENCES, *own[n * 10 : n * 10 + 10]]) for n in range(20)}
    files["usr/share/doc/xen-doc/copyright"] = b"Files: *\nLicense: GPL-2+\n"
    archive(tmp_path / "debs" / "xen-doc_1.0_all.deb", files)
    first = corpus.build(tmp_path)
    kept = {part: (tmp_path / f"{part}.jsonl").read_bytes() for part in ("train", "held_out")}
    texts = {part: [json.loads(line)["text"] for line in data.splitlines()] for part, data in kept.items()}
    paragraphs = "\n".join(texts["train"] + texts["held_out"]).split("\n")
    assert sorted(paragraphs) == sorted(SENTENCES + own)
    assert min(map(len, texts.values())) > 1
    assert first["sources"]["xen-doc"]["licences"] == "GPL-2+"
    assert first["sources"]["xen-doc"]["version"] == "1.0"
    assert corpus.build(tmp_path) == first


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_copyright_file_may_lie_in_another_package_and_must_name_a_licence(tmp_path):
    place = "usr/share/doc/{}/copyright".format
    archive(tmp_path / "cmake-doc_1_all.deb", {"usr/share/doc/x": b""})
    with pytest.raises(PolytopeError, match=r"cmake-doc_1_all\.deb: cmake-data's copyright file is missing"):
        corpus.licences(tmp_path / "cmake-doc_1_all.deb")
    fields = b"Files: *\nLicense: BSD-3-clause\n\nFiles: a\nLicense: GPL-2+</pre>\n\nLicense: GPL-2+\n text\n"
    archive(tmp_path / "cmake-data_1_all.deb", {place("cmake-data"): fields})
    assert corpus.licences(tmp_path / "cmake-doc_1_all.deb") == "BSD-3-clause; GPL-2+"
    archive(tmp_path / "git-doc_1_all.deb", {place("git-doc"): b"It may be copied."})
    with pytest.raises(PolytopeError, match=r"git-doc_1_all\.deb: git-doc's copyright file"):
        corpus.licences(tmp_path / "git-doc_1_all.deb")


@pytest.mark.parametrize("name", ["small-gpt2", "small-relu"])
def test_a_card_names_the_licences_of_every_package(name):
    text = (Path(corpus.__file__).parents[1] / "models" / name / "README.md").read_text(encoding="utf-8")
    rows = {row[1].strip(): row[3].strip() for line in text.splitlines() if len(row := line.split("|")) == 6}
    named = {package: rows[package] for package in corpus.SOURCES if package in rows}
    assert len(named) == 91
    assert all(named.values())
    assert {package: named[package] for package in corpus.LICENCES} == corpus.LICENCES
    assert named["manpages-dev"] == named["manpages"]
