"""Text files as lines: compression and byte-order marks are recognised, a wrong encoding is named."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from finetune_trainer.data.readers.base import DAMAGED, UnreadableError

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GZIP: Final = b"\x1f\x8b"
_LFS_POINTER: Final = b"version https://git-lfs.github.com/"
_HEAD: Final = 4096
_WESTERN_SHARE: Final = 0.3
"""Of a text in a Western language, fewer letters than this have accents."""


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """The file's text, decompressed. Bytes that are not UTF-8 become surrogates, which `undecodable` finds.

    Raises `UnreadableError` for what is no text in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark.
    """
    with _reading():
        with _open(path) as file:
            head = file.read(_HEAD)
        encoding = _encoding(head, path)
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        with _open(path) as file, io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="\n") as text:
            yield text


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line, with its line feed. Raises `UnreadableError`."""
    with open_text(path) as text:
        yield from enumerate(text, start=1)


def undecodable(text: str) -> str | None:
    """What to say of a text that was not UTF-8 in its file; None for one that was."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raw = text.encode(errors="surrogateescape")
        first = raw[len(text[: error.start].encode(errors="surrogateescape"))]
        return f"is not UTF-8 (byte 0x{first:02x}): {_advice(raw)}"
    return None


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise UnreadableError(f"it is not {error.encoding.upper()}: {error.reason}", DAMAGED) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableError(str(error), DAMAGED) from error


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP)) == _GZIP
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]


def _encoding(head: bytes, path: Path) -> str:
    if head.startswith(_LFS_POINTER):
        raise UnreadableError("it is a pointer of Git LFS, not the data", "run `git lfs pull` and upload the data")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    for name, zeros in (("UTF-16LE", head[1::2]), ("UTF-16BE", head[::2])):
        if zeros and zeros.count(0) > len(zeros) // 2:
            raise UnreadableError(
                f"it looks like {name} without a byte-order mark",
                f"convert it with `iconv -f {name} -t UTF-8 {path.name}`",
            )
    return "utf-8"


def _advice(raw: bytes) -> str:
    high = sum(byte > 0x7F for byte in raw)  # noqa: PLR2004 - beyond ASCII
    try:
        raw.decode("cp1252")
        is_western = high <= _WESTERN_SHARE * len(raw)
    except UnicodeDecodeError:
        is_western = False
    if is_western:
        return "looks like latin-1/Windows-1252, convert the file with `iconv -f WINDOWS-1252 -t UTF-8`"
    return "convert the file with `iconv -f ITS-ENCODING -t UTF-8`"
