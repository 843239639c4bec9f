"""Whom HTTPS trusts, besides the machine's authorities: those that SSL_CERT_FILE or _DIR names."""

from __future__ import annotations

import os

UNTRUSTED = (
    "its certificate is not trusted; renew it, or give the daemon its authority (SSL_CERT_FILE)"
)


def named() -> str:
    """The file or folder of authorities that the environment names; "" for none."""
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or ""


def distrusts(error: Exception) -> bool:
    """Is it the certificate of the other side that is not trusted; whichever client says so."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)
