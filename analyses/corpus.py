"""Make an English text of free software's documentation and of free books, out of Debian packages.

    python -m analyses.corpus WORK             # WORK/train.jsonl, WORK/held_out.jsonl, WORK/sources.json
    python -m analyses.corpus WORK --download  # first fetch the packages with apt-get, into WORK/debs

Every package is in Debian's `main`, so its text is free by Debian's guidelines. Nothing is installed: the archives are
read as they are. Only prose is kept: paragraphs of eight words or more, with the letters and the small words that
English has. No paragraph stands twice. The same archives give the same bytes.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import hashlib
import html
import json
import multiprocessing
import re
import string
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CAP = 12_000_000  # characters a package may give, so that none drowns the others
HELD_OUT = 100  # one document in so many is held out
LEAST = 8  # words of a paragraph
DOCUMENT = 20_000  # characters; what is longer is cut into several documents
SHORTEST = 200  # characters of a document
SMALL = frozenset(
    [
        "the",
        "of",
        "and",
        "to",
        "a",
        "in",
        "is",
        "that",
        "it",
        "for",
        "as",
        "with",
        "be",
        "are",
        "this",
        "on",
        "by",
        "or",
        "an",
        "not",
        "from",
        "which",
        "if",
        "you",
        "can",
        "at",
        "have",
        "has",
        "was",
        "will",
        "but",
        "they",
        "i",
        "he",
        "his",
        "her",
        "she",
        "their",
        "we",
        "all",
        "when",
        "there",
        "one",
        "no",
        "what",
        "who",
        "him",
        "them",
        "would",
        "had",
        "were",
        "into",
        "then",
    ]
)
# Packages and which of their files are read; the rest (programs, translations, lists of names) is left out.
SOURCES = {
    # Books, reference works and speech
    "anarchism": r"\.html$",
    "dict-devil": r"\.dict\.dz$",
    "dict-foldoc": r"\.dict\.dz$",
    "dict-gcide": r"\.dict\.dz$",
    "dict-jargon": r"\.dict\.dz$",
    "fortunes": r"games/fortunes/[^.]+$",
    "miscfiles": r"share/misc/.*\.gz$",
    "r-cran-janeaustenr": r"\.rdb$",
    "sword-comm-mhcc": r"\.bzz$|\.czz$",
    "sword-text-web": r"\.bzz$|\.czz$",
    "wordnet-base": r"data\.(noun|verb|adj|adv)$",
    **{
        f"wesnoth-1.16-{campaign}": r"\.(cfg|lua)$"
        for campaign in [
            "data",
            "did",
            "dm",
            "dw",
            "ei",
            "httt",
            "l",
            "low",
            "nr",
            "sof",
            "sota",
            "sotbe",
            "thot",
            "trow",
            "tsg",
            "ttb",
            "utbs",
        ]
    },
    # Manuals for users
    "debian-handbook": r"/en-US/.*\.html$",
    "freedombox-doc-en": r"\.html$",
    "gimp-help-en": r"\.html$",
    "gnome-devel-docs": r"/C/.*\.page$",
    "gnome-user-docs": r"/C/.*\.page$",
    "gnucash-docs": r"/gnucash-(guide|manual|help)(-C|-en)?/.*\.html$",
    "kicad-doc-en": r"\.html$",
    "libreoffice-help-en-us": r"\.html?$",
    "lilypond-doc-html": r"/[^./]+\.html$",
    "mate-user-guide": r"/C/.*\.(xml|docbook|page)$",
    # Debian
    "aptitude-doc-en": r"\.html$",
    "apt-doc": r"/(guide|offline)\.html/[^/]+\.html$",
    "debian-faq": r"\.en\.html$",
    "debian-history": r"\.en\.html$",
    "debian-kernel-handbook": r"\.html$",
    "debian-policy": r"\.html$",
    "debian-reference-en": r"\.html$",
    "debmake-doc": r"\.en\.html$",
    "developers-reference": r"/developers-reference/[^/]+\.html$",
    "harden-doc": r"/en-US/.*\.html$|\.en\.html$",
    "installation-guide-amd64": r"/en/.*\.html$",
    "maint-guide": r"\.en\.html$",
    # Systems and languages
    "abs-guide": r"\.html$",
    "bind9-doc": r"\.html$",
    "cmake-doc": r"\.html$",
    "cppreference-doc-en-html": r"\.html$",
    "csound-doc": r"\.html$",
    "erlang-doc": r"\.html$",
    "exim4-doc-html": r"\.html$",
    "ghc-doc": r"users_guide/.*\.html$",
    "git-doc": r"\.html$",
    "grass-doc": r"\.html$",
    "keystone-doc": r"\.html$",
    "linux-doc-6.12": r"\.html$|\.rst(\.gz)?$|\.txt(\.gz)?$",
    "llvm-19-doc": r"\.html$",
    "manpages": r"/man\d/.*\.gz$",
    "manpages-dev": r"/man\d/.*\.gz$",
    "maxima-doc": r"/html/[^/]+\.html$|share/doc/maxima[^/]*/[^/]+\.html$",
    "mit-scheme-doc": r"\.html$",
    "neutron-doc": r"\.html$",
    "nova-doc": r"\.html$",
    "octave-doc": r"\.html$",
    "perl-doc": r"\.pod$",
    "postfix-doc": r"\.html$",
    "postgresql-doc-15": r"\.html$",
    "python-astropy-doc": r"\.html$",
    "python-biopython-doc": r"\.html$",
    "python-dask-doc": r"\.html$",
    "python-django-doc": r"\.html$",
    "python-pandas-doc": r"\.html$",
    "python-scipy-doc": r"\.html$",
    "python-sklearn-doc": r"\.html$",
    "python-statsmodels-doc": r"\.html$",
    "python-sympy-doc": r"\.html$",
    "python3.11-doc": r"\.html$",
    "qtbase5-doc-html": r"\.html$",
    "r-doc-html": r"\.html$",
    "racket-doc": r"\.html$",
    "rust-doc": (
        r"/html/(book|nomicon|reference|rust-by-example|edition-guide|rustc|cargo|embedded-book|std|core)/.*\.html$"
    ),
    "sqlite3-doc": r"\.html$",
    "twisted-doc": r"\.html$",
    "vim-runtime": r"/doc/[^/]+\.txt$",
    "xen-doc": r"\.(html|txt)(\.gz)?$",
}
# Packages whose folder of documentation is a link to another package's, which has the copyright file.
COPYRIGHT_IN = {"cmake-doc": "cmake-data", "gimp-help-en": "gimp-help-common", "manpages-dev": "manpages"}
# What copyright files say that are prose, not fields a program can read.
_WESNOTH = "GPL-2+; of a library and fonts: LGPL-2+, Bitstream Vera, MIT, Apache-2.0"
LICENCES = {
    "debian-faq": "copies, and changed ones under the same permission notice (Software in the Public Interest)",
    "debian-history": "GPL-2+",
    "dict-devil": "public domain",
    "dict-foldoc": "GFDL-1.1+ without invariant sections; Debian's entries: copies under the same terms",
    "dict-gcide": "GPL-2+; formatting software: GPL-1+",
    "exim4-doc-html": "GPL-2+",
    "fortunes": "BSD-3-clause for the program; none is named for the collected sayings",
    "installation-guide-amd64": "GPL-2",
    "maxima-doc": "GPL-2",
    "mit-scheme-doc": "manuals: GFDL-1.2+ without invariant sections; programs: GPL-2+",
    "postfix-doc": "EPL-2.0 or IPL-1.0",
    "python3.11-doc": "PSF-2.0, and of older parts BeOpen's, CNRI's and CWI's; incorporated software: its own",
    "r-doc-html": "GPL-2; portions LGPL, Artistic",
    "racket-doc": "LGPL-2.1+; parts: Apache-2.0, BSD-3-clause, CC-BY-3.0, MIT",
    **{package: _WESNOTH for package in SOURCES if package.startswith("wesnoth-")},
}
BLOCKS = (
    r"p|li|dd|dt|h\d|div|td|th|tr|table|ul|ol|dl|br|hr|section|article|blockquote|body|title|para|simpara|item|"
    r"listitem|term|note|tip|caption|figcaption|desc|text|entry|row|header|footer|nav|aside|main|summary|details"
)
NO_PROSE = (
    r"script|style|pre|nav|head|footer|svg|math|programlisting|screen|code-block|listing|literallayout|synopsis|"
    r"funcsynopsis|cmdsynopsis|info|credit|license|select|button|form|noscript|textarea"
)


def unwrapped(block: str) -> str:
    """Return a block's lines as one line with single spaces."""
    return " ".join(block.split())


def blocks(text: str) -> Iterator[str]:
    """Yield the stretches between blank lines."""
    return map(unwrapped, re.split(r"\n\s*\n", text))


def from_markup(text: str) -> Iterator[str]:
    """Yield the blocks of HTML, DocBook or Mallard; program text, navigation and heads are left out."""
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.DOTALL)
    text = re.sub(rf"<({NO_PROSE})\b[^>]*(?<!/)>.*?</\1\s*>", "\0", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(rf"</?({BLOCKS})\b[^>]*>", "\0", text, flags=re.IGNORECASE)
    text = html.unescape(re.sub(r"<[^>]*>", "", text)).replace("\u00b6", "").replace("\uf0c1", "")
    return map(unwrapped, text.split("\0"))


def from_text(text: str) -> Iterator[str]:
    """Yield the blocks of plain text or reStructuredText."""
    text = re.sub(r"^\s*\.\. .*$", "", text, flags=re.MULTILINE)
    text = re.sub(r":[\w:+-]+:`([^`<]*?)\s*(<[^`>]*>)?`", r"\1", text)
    return blocks(text.replace("``", "").replace("**", ""))


def from_manual_page(text: str) -> Iterator[str]:
    """Yield the blocks of a page in groff's `man` macros."""
    lines = []
    for line in text.split("\n"):
        macro = re.match(r"""[.'](\w+|\\")\s*(.*)""", line)
        if macro is None:
            lines.append(line)
        elif macro[1] in {"B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "SM", "SB"}:
            joined = macro[1] not in {"B", "I", "SM", "SB"}
            lines.append(macro[2].replace('"', "") if not joined else re.sub(r'\s*"?\s*', "", macro[2], count=0))
        elif macro[1] in {"PP", "TP", "IP", "P", "LP", "SH", "SS", "RS", "RE", "HP", "EX", "EE", "nf", "fi", "TS"}:
            lines.append("")
    text = re.sub(r"\\f(\(..|\[.*?\]|.)", "", "\n".join(lines))
    for mark, character in {r"\-": "-", r"\(em": " - ", r"\(aq": "'", r"\&": "", r"\e": "\\", r"\(dq": '"'}.items():
        text = text.replace(mark, character)
    return blocks(text)


def from_pod(text: str) -> Iterator[str]:
    """Yield the paragraphs of Perl's documentation; indented ones are program text."""
    for block in re.split(r"\n\s*\n", text):
        if not block.startswith((" ", "\t", "=")):
            for _ in range(3):  # marks may stand inside one another
                block = re.sub(r"[BCFIX]<+ ?([^<>]*?) ?>+", r"\1", block)  # noqa: PLW2901
                block = re.sub(r"L<(?:([^<>|]*)\|)?([^<>]*)>", lambda m: m[1] or m[2], block)  # noqa: PLW2901
            yield unwrapped(block.replace("E<gt>", ">").replace("E<lt>", "<"))


def from_wordnet(text: str) -> Iterator[str]:
    """Yield a synset's words and gloss as one line."""
    for line in text.split("\n"):
        if " | " in line and not line.startswith(" "):
            data, gloss = line.split(" | ", 1)
            fields = data.split()
            words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
            yield f"{', '.join(words)}: {gloss.strip()}."


def from_game(text: str) -> Iterator[str]:
    """Yield what is spoken and told in a game's scenarios: strings that are marked for translation."""
    for match in re.finditer(r'_\s*"((?:[^"]|"")*)"', text):
        yield unwrapped(re.sub(r"<[^>]*>", "", match[1].replace('""', '"')))


def from_r(data: bytes) -> Iterator[str]:
    """Yield the paragraphs of character vectors in R's database of objects (compressed records, lines as elements)."""
    position = 0
    while position + 5 < len(data):
        start = data.find(b"\x78\x9c", position)
        if start < 0:
            return
        decompress = zlib.decompressobj()
        try:
            record = decompress.decompress(data[start:])
        except zlib.error:
            position = start + 2
            continue
        position = len(data) - len(decompress.unused_data)
        lines, at = [], 0
        while (at := record.find(b"\x09", at + 1)) >= 3:
            if record[at - 3 : at - 2] == b"\x00" and at + 5 <= len(record):
                (length,) = struct.unpack(">i", record[at + 1 : at + 5])
                if 0 <= length < 200 and at + 5 + length <= len(record):
                    lines.append(record[at + 5 : at + 5 + length].decode("utf-8", "replace"))
                    at += 4 + length
        yield from blocks("\n".join(lines))


def from_sword(data: bytes, index: bytes) -> Iterator[str]:
    """Yield the blocks of a SWORD module: zlib-compressed books behind an index of offset and size."""
    for at in range(0, len(index) - 11, 12):
        offset, size, _ = struct.unpack("<III", index[at : at + 12])
        text = zlib.decompress(data[offset : offset + size]).decode("utf-8", "replace")
        text = re.sub(r"<(note|title)\b.*?</\1>", " ", text, flags=re.DOTALL)
        # A verse is no sentence: verses are joined until a full stop.
        for block in from_markup(re.sub(r"</?(verse|div|chapter|l|lg|q)\b[^>]*>", " ", text).replace("\0", " ")):
            for run in re.findall(r".{400,1200}?[.!?]['\"\u201d\u2019]?(?=\s|$)|.+$", block):
                yield run.strip()


def from_dictionary(data: bytes, index: bytes) -> Iterator[str]:
    """Yield a `dict` file's entries, each as one line."""
    digits = {c: i for i, c in enumerate(string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/")}
    number = lambda code: functools.reduce(lambda n, c: 64 * n + digits[c], code, 0)  # noqa: E731
    places = {tuple(map(number, line.split("\t")[1:3])) for line in index.decode("utf-8").split("\n") if line}
    for start, length in sorted(places):
        entry = data[start : start + length].decode("utf-8", "replace")
        entry = re.sub(r"\[(1913 Webster|PJC|WordNet 1\.5|Webster 1913 Suppl\.)\]", "", entry)
        yield from blocks(entry.replace("{", "").replace("}", ""))


def is_prose(block: str) -> bool:
    """Whether a block is English prose: long enough, of letters, with small words, and ended like a sentence."""
    words = block.split()
    if len(words) < LEAST or block[-1] not in ".!?:;)\"'\u201d\u2019" or len(max(words, key=len)) > 60:
        return False
    letters = sum(map(str.isalpha, block)) + len(words)
    small = sum(word.lower().strip(string.punctuation) in SMALL for word in words)
    plain = sum(map(str.isascii, block))
    return letters >= 0.85 * len(block) and small >= 0.15 * len(words) and plain >= 0.97 * len(block)


def files(archive: Path, pattern: str) -> dict[str, bytes]:
    """Return the contents of an archive's files that match, by name; compressed ones are opened."""
    wanted = re.compile(rf"{pattern}|\.(index|bzs|czs)$")
    found: dict[str, bytes] = {}
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        for member in tar:
            if member.isfile() and wanted.search(member.name) and (file := tar.extractfile(member)):
                data = file.read()
                found[member.name] = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    return dict(sorted(found.items()))


def read(package: str, name: str, found: dict[str, bytes]) -> Iterator[str]:
    """Return the blocks of one file, by what its package and its name say that it is."""
    data = found[name]
    stem, _, suffix = name.rpartition(".")
    if package.startswith("dict-"):
        return from_dictionary(data, found[name.replace(".dict.dz", ".index")])
    if package.startswith("sword-"):
        return from_sword(data, found[f"{stem}.{suffix[:2]}s"])
    if package == "r-cran-janeaustenr":
        return from_r(data)
    readers: dict[str, Callable[[str], Iterator[str]]] = {
        "wesnoth-1.16": from_game,
        "wordnet-base": from_wordnet,
        "fortunes": lambda text: map(unwrapped, text.split("\n%\n")),
        "manpages": from_manual_page,
        "perl-doc": from_pod,
        "miscfiles": from_text,
    }
    kind = from_text if re.search(r"\.(rst|txt)(\.gz)?$", name) else from_markup
    kind = next((reader for start, reader in readers.items() if package.startswith(start)), kind)
    return kind(data.decode("utf-8", "replace"))


def of_package(archive: Path) -> tuple[str, list[tuple[str, list[str]]]]:
    """Return a package's name and its documents: file names with their prose. Runs in a process of its own."""
    package = archive.name.partition("_")[0]
    found = files(archive, SOURCES[package])
    names = [name for name in found if re.search(SOURCES[package], name)]
    # In the order of hashes a package that is cut at the cap gives of all its parts.
    names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    documents, size, seen = [], 0, set()
    for name in names:
        kept = [block for block in read(package, name, found) if is_prose(block)]
        kept = [block for block in kept if not (block in seen or seen.add(block))]  # type: ignore[func-returns-value]
        # A book in one file is many documents: of about 20,000 characters each.
        while kept:
            total, count = 0, 0
            while count < len(kept) and total < DOCUMENT:
                total += len(kept[count]) + 1
                count += 1
            if total >= SHORTEST:
                documents.append((f"{name.removeprefix('./')}", kept[:count]))
                size += total
            kept = kept[count:]
        if size >= CAP:
            break
    return package, documents


def licences(archive: Path) -> str:
    """Return the licences that a package's copyright file names: at most eight of its fields, or what its prose says.

    The archive of the package that has the copyright file lies beside it.

    Raises:
        PolytopeError: no copyright file, or one that names no licence.

    """
    package = archive.name.partition("_")[0]
    if package in LICENCES:
        return LICENCES[package]
    holder = COPYRIGHT_IN.get(package, package)
    found = [
        files(path, rf"share/doc/{re.escape(holder)}/copyright") for path in archive.parent.glob(f"{holder}_*.deb")
    ]
    text = "\n".join(data.decode("utf-8", "replace") for each in found for data in each.values())
    named = list(dict.fromkeys(re.findall(r"^License:[ \t]*([^\s,<][^\n<]*)", text, re.MULTILINE)))
    if not named:
        raise PolytopeError(
            f"{archive.name}: {holder}'s copyright file is missing or names no licence in a field `License:`; "
            "fetch that package, too, or write what it says into LICENCES"
        )
    return "; ".join(dict.fromkeys(unwrapped(name) for name in named[:8]))


def build(work: Path) -> dict[str, object]:
    """Write the text and return what it was made of."""
    archives = sorted(path for path in (work / "debs").glob("*.deb") if path.name.partition("_")[0] in SOURCES)
    missing = SOURCES.keys() - {path.name.partition("_")[0] for path in archives}
    print(f"{len(archives)} packages; not there: {', '.join(sorted(missing)) or 'none'}", file=sys.stderr)
    seen: set[bytes] = set()
    documents: list[tuple[bytes, str]] = []
    sources = {}
    with multiprocessing.Pool(2) as pool:
        for archive, (package, found) in zip(archives, pool.imap(of_package, archives), strict=True):
            size = 0
            for number, (name, kept) in enumerate(found):
                new = []
                for block in kept:
                    key = hashlib.blake2b("".join(filter(str.isalpha, block.lower())).encode(), digest_size=10).digest()
                    if key not in seen:
                        seen.add(key)
                        new.append(block)
                text = "\n".join(new)
                if len(text) >= SHORTEST:
                    size += len(text.encode())
                    place = hashlib.sha256(f"{package} {name} {number}".encode()).digest()
                    documents.append((place, json.dumps({"source": package, "text": text}, ensure_ascii=False)))
            sources[package] = {
                "version": archive.name.split("_")[1].replace("%3a", ":"),
                "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
                "licences": licences(archive),
                "bytes": size,
            }
            print(f"{package}: {size / 1e6:.2f} MB", file=sys.stderr)
    documents.sort()
    parts = {
        "held_out": [line for place, line in documents if place[0] * 256 + place[1] < 65536 // HELD_OUT],
        "train": [line for place, line in documents if place[0] * 256 + place[1] >= 65536 // HELD_OUT],
    }
    note: dict[str, object] = {"sources": sources}
    for part, lines in parts.items():
        data = "".join(f"{line}\n" for line in lines).encode()
        (work / f"{part}.jsonl").write_bytes(data)
        note[part] = {"documents": len(lines), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (work / "sources.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    return note


def main(argv: Sequence[str] | None = None) -> None:
    """Make the text and print its size."""
    parser = argparse.ArgumentParser(prog="python -m analyses.corpus", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("work", type=Path, help="directory of the text; its folder debs holds the packages")
    parser.add_argument("--download", action="store_true", help="fetch the packages with apt-get first")
    chosen = parser.parse_args(argv)
    if chosen.download:
        (chosen.work / "debs").mkdir(parents=True, exist_ok=True)
        holders = sorted({*COPYRIGHT_IN.values()} - SOURCES.keys())
        command = ["apt-get", "download", *SOURCES, *holders]
        subprocess.run(command, cwd=chosen.work / "debs", check=True)
    note = build(chosen.work)
    print(json.dumps({part: note[part] for part in ("train", "held_out")}))


if __name__ == "__main__":
    main()
