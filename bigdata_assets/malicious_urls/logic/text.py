"""Bytes of a text file, packed or not, in UTF-8 whatever byte-order mark it has."""

import codecs
import gzip
import zlib
from typing import IO, Any, cast

from upath import UPath

MAX_EXPANDED_BYTES = 8 << 30
"""A .csv.gz that grows beyond this is a bomb or a mistake."""
_ENCODINGS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""By byte-order mark; that of UTF-32 begins as that of UTF-16 does."""


def encoding_of(path: UPath) -> str:
    """The encoding that a file's byte-order mark tells, else UTF-8, whatever its bytes are.

    Raises:
        OSError, EOFError, zlib.error: it is no gzip file, although it is named so.
    """
    with path.open("rb") as file:
        head = _unpacked(file, path).read(4)
    return next((name for mark, name in _ENCODINGS.items() if head.startswith(mark)), "utf-8")


def is_stream(path: UPath, encoding: str) -> bool:
    """Whether a text can only be read from its beginning."""
    return _is_packed(path) or encoding != "utf-8"


class Text:
    """A text file's bytes from `start` to `end`, offsets in what is unpacked and in UTF-8.

    Attributes:
        problem: why there are no more bytes, where that is not the text's end.
    """

    def __init__(self, path: UPath, encoding: str, start: int, end: int) -> None:
        self.problem = ""
        self._left, self._ended, self._pending = end - start, False, b""
        self._is_stream = is_stream(path, encoding)
        self._decode = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)("replace").decode
        self._file = cast(IO[bytes], path.open("rb"))
        unpacked = _unpacked(self._file, path)
        # One read at a time of what is packed, so that nothing is lost that was read before a broken part.
        self._read = unpacked.read1 if _is_packed(path) else unpacked.read
        if self._is_stream:
            self._left = end
            self._pending = self.read(start)[start:]
        else:
            self._file.seek(start)

    def __enter__(self) -> "Text":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """The next bytes, `size` or some more; fewer only at the end."""
        parts, self._pending = [self._pending], b""
        n_bytes = len(parts[0])
        while n_bytes < size and not self._ended:
            parts.append(self._part(size - n_bytes))
            n_bytes += len(parts[-1])
        return b"".join(parts)

    def _part(self, size: int) -> bytes:
        try:
            part = self._read(min(size, max(self._left, 1)) if self._left > 0 or self._is_stream else 0)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            return self._end(f"the rest of the file is broken: {error}")
        if part and self._left <= 0:
            return self._end(f"the rest of the file is beyond {MAX_EXPANDED_BYTES} bytes")
        self._ended = not part
        text = part if self._decode is None else self._decode(part, self._ended).encode("utf-8", "replace")
        self._left -= len(text)
        return text

    def _end(self, problem: str) -> bytes:
        self.problem, self._ended = problem, True
        return b""


def _unpacked(file: IO[bytes], path: UPath) -> Any:
    return gzip.GzipFile(fileobj=file) if _is_packed(path) else file


def _is_packed(path: UPath) -> bool:
    return path.name.endswith(".gz")
