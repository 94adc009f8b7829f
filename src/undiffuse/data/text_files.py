"""Text files: opened whether compressed or not, and their encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import zipfile
from collections import Counter
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Literal, cast

from undiffuse.data.validation import refuse_bomb
from undiffuse.errors import InputError, quote

SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".dat", ".tab")
"""Endings of text files of rows, which may be followed by that of a compression."""
_CHUNK = 1 << 20
_LETTERS = frozenset("äöüÄÖÜßéèêëáàâåãçñóòôõíìîïúùûýæøÆØÅÉÁÑÇ’‘“”–—…°€£´²³½šžŠŽćčőű")


def _open_zip(path: Path, mode: Literal["r", "rb"]) -> IO[bytes]:
    """The only table in a .zip archive."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX")]
        tables = [name for name in names if name.lower().endswith(SUFFIXES)]
        if len(tables) != 1:
            raise InputError(f"{quote(path)} holds {len(tables)} tables ({', '.join(map(quote, names[:5]))}); expected "
                             f"one, so unpack it and give the path of a file")
        return archive.open(tables[0])


OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _open_zip}
"""How a file is opened, by the ending of its compression."""


def open_text(path: Path, encoding: str) -> TextIOWrapper:
    """The text of a file, unpacked; its line ends are those of the file."""
    opener = OPENERS.get(path.suffix.lower(), open)
    return TextIOWrapper(cast(IO[bytes], opener(path, "rb")), encoding=encoding, newline="")


def encoding_of(path: Path) -> tuple[str, list[str]]:
    """The encoding of a file, and a note if it is not UTF-8."""
    decoder, unpacked, other, zeros, start = codecs.getincrementaldecoder("utf-8")(), 0, bytearray(), 0, b""
    valid = True
    with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            start, unpacked, zeros = start or chunk[:4096], unpacked + len(chunk), zeros + chunk.count(0)
            refuse_bomb(path, unpacked)
            try:
                decoder.decode(chunk) if valid else None
            except UnicodeDecodeError:
                valid = False
            if not chunk.isascii() and len(other) < _CHUNK:
                other += chunk
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not len(start) % 2 and (zeros or not valid):
        return "utf-16", []
    if zeros:
        wide = [start[k::2].count(0) for k in (0, 1)]
        if max(wide) < 0.3 * len(start):
            raise InputError(f"{quote(path)} holds zero bytes; expected the text of a table")
        return ("utf-16-be" if wide[0] > wide[1] else "utf-16-le"), ["the text was read as UTF-16"]
    if valid:
        return "utf-8-sig", []
    encoding = max(("cp1252", "mac_roman", "latin-1"), key=lambda name: _plausibility(bytes(other), name))
    return encoding, [f"the text is not UTF-8 and was read as {encoding}"]


def _plausibility(data: bytes, encoding: str) -> float:
    """Fraction of the non-ASCII characters that are usual in this encoding, less those inside a word that are not."""
    text = data.decode(encoding, "replace")
    characters = Counter(c for c in text if not c.isascii())
    unusual = sum(len(m) for m in re.findall(r"(?<=[a-z])[^\x00-\x7f](?=[a-z])", text) if m not in _LETTERS
                  or m.isupper())
    usual = sum(n for c, n in characters.items() if c in _LETTERS)
    return (usual - unusual) / max(1, characters.total())
