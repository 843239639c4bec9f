"""Certificate authorities trusted for outgoing HTTPS.

These are the authorities of the machine and of certifi, or those that the environment names.
"""

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
    """Return the file or folder of authorities that the environment names, or ""."""
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or ""


def trusted() -> ssl.SSLContext:
    """Return the TLS context, created again only if the named file was replaced (takes 40 ms)."""
    path = named()
    try:
        mark = Path(path).stat().st_mtime_ns if path else 0
    except OSError:
        mark = 0
    return _context(path, mark)


@functools.lru_cache(maxsize=1)
def _context(place: str, mark: int) -> ssl.SSLContext:
    del mark
    context = ssl.create_default_context()  # of `place`, or of the machine if it is empty
    if not place:
        context.load_verify_locations(certifi.where())
    return context


def distrusts(error: Exception) -> bool:
    """Return True if an error of any HTTP client means that the certificate is untrusted."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)
