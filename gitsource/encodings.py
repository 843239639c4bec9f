"""Decoding of the text files of an environments repo."""

from __future__ import annotations

import codecs
import json


class NotUtf8(ValueError):
    """Text in another encoding; `line` is the first line that is not UTF-8, counted from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def decode_text(data: bytes) -> str:
    """Return UTF-8 text without its byte order mark. Raises NotUtf8."""
    encoding = json.detect_encoding(data)
    if encoding.startswith(("utf-16", "utf-32")):
        raise NotUtf8(1, f"{encoding[:6].upper()} text; save the file as UTF-8")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise NotUtf8(line, "not UTF-8 text; save the file as UTF-8") from error
