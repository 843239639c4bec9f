"""Health check of the image: exits with 0 if /healthz returns 200, else with 1 and the reason.

The image's HEALTHCHECK runs it. Standard library only; it connects to this container only.
"""

from __future__ import annotations

import http.client
import os
import sys

ADDRESSES = ("127.0.0.1", "::1")
TIMEOUT = 4.0  # seconds; the image's limit is 5


def main() -> int:
    """Query the port of GROUNDCREW_HTTP__PORT at the first loopback address that answers."""
    port = int(os.environ.get("GROUNDCREW_HTTP__PORT", "8085"))
    said = "no answer"
    for address in ADDRESSES:
        connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT / len(ADDRESSES))
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            said = f"{answer.status} {answer.read(1000).decode(errors='replace').strip()}"
            if answer.status == http.client.OK:
                return 0
            break
        except (OSError, http.client.HTTPException) as error:
            said = f"{address}:{port}: {error}"
        finally:
            connection.close()
    sys.stderr.write(f"/healthz: {said}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
