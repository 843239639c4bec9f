"""Report of a pod that parsed DAGs, as read from the pod's log.

DAGs and the candidate's code run beside the program that writes it, so it is untrusted: its size is
limited before and after unpacking, and its shape is checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from reconciler.builder.verify.dag_pods.dag_parser import PREFIX
from reconciler.core.budget import LARGEST
from reconciler.documents import Document, Malformed, Rows, parse

LIMIT = 16 << 20  # bytes of a report, unpacked

Count = Annotated[int, Field(ge=0, lt=LARGEST)]
Kind = Literal["ok", "forks", "error", "hung", "died"]


class Outcome(Document):
    """Result of parsing one file with one build."""

    kind: Kind
    error: str


class Row(Document):
    """A file that does not simply parse with the candidate; `reference` is the result to compare.

    That is the result with the active build, or with the base alone.
    """

    file: str
    candidate: Outcome
    reference: Outcome | None


class Report(Document):
    """Result of parsing all DAGs.

    `files` are the first names, of `count` in total; `late` were left out when the time was over;
    `failed` says why nothing could be parsed with the candidate, and `reference_failed` with the
    reference.
    """

    folders: Rows[str]
    unseen: Rows[str]
    files: Rows[str]
    count: Count
    late: Count
    mark: str
    commit: str
    rows: Rows[Row]
    more: Count
    failed: str
    reference_failed: str


def read_report(lines: Iterable[str]) -> Report:
    """Return the report in a log. Raises Malformed if it is missing or incomplete."""
    pieces: dict[int, str] = {}
    digest = ""
    for line in lines:
        prefix, _, rest = line.partition(" ")
        number, _, text = rest.partition(" ")
        if prefix != PREFIX:
            continue
        if number == "end":
            digest = text.strip()
        elif number.isdecimal():
            pieces[int(number)] = text.strip()
    data = "".join(pieces[number] for number in sorted(pieces))
    if not data or hashlib.sha256(data.encode()).hexdigest() != digest:
        raise Malformed("the log of the pod has no whole report")
    try:
        unpacker = zlib.decompressobj(wbits=31)
        unpacked = unpacker.decompress(base64.b64decode(data, validate=True), LIMIT)
    except (binascii.Error, zlib.error) as error:
        raise Malformed(f"the report of the pod cannot be unpacked: {error}") from error
    if unpacker.unconsumed_tail:
        raise Malformed("the report of the pod is too large")
    return parse(Report, unpacked, "the report of the pod")
