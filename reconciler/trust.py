"""Whom HTTPS trusts: the authorities of the machine and of certifi, or those that are named."""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path

import certifi

UNTRUSTED = (
    "its certificate is not trusted; renew it, or give the daemon its authority (SSL_CERT_FILE)"
)


def named() -> str:
    """The file or folder of authorities that the environment names; "" for none."""
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or ""


def trusted() -> ssl.SSLContext:
    """What connections are checked by, read anew when it is replaced: that takes 40 ms."""
    place = named()
    try:
        mark = Path(place).stat().st_mtime_ns if place else 0
    except OSError:
        mark = 0
    return _context(place, mark)


@functools.lru_cache(maxsize=1)
def _context(place: str, mark: int) -> ssl.SSLContext:
    del mark
    context = ssl.create_default_context()  # what `place` names, else the machine's
    if not place:
        context.load_verify_locations(certifi.where())
    return context


def distrusts(error: Exception) -> bool:
    """Is it the certificate of the other side that is not trusted; whichever client says so."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)
