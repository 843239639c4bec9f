"""The program of a worker: `python -m reconciler.isolated_worker`, started by reconciler.isolation.

It reads calls from standard input and writes their results to standard output, until its input
ends. The kernel ends it when a call uses more CPU time than the call may.
"""

from __future__ import annotations

import math
import os
import pickle
import resource
import signal
import sys
import threading
import time
import traceback
from typing import BinaryIO

from reconciler.core.errors import GroundcrewError
from reconciler.documents import Malformed
from reconciler.isolation import HEADER

MEMORY_LIMIT = 1 << 30  # bytes of address space


def serve(calls: BinaryIO, results: BinaryIO) -> None:
    """Answer calls until there are no more."""
    while len(header := calls.read(HEADER.size)) == HEADER.size:
        answer = pickle.dumps(run(calls.read(HEADER.unpack(header)[0])))
        results.write(HEADER.pack(len(answer)) + answer)
        results.flush()


def run(request: bytes) -> tuple[str, object]:
    """Carry out one call and return its result, or what went wrong."""
    cpu_limit, function, args, kwargs = pickle.loads(request)  # noqa: S301 - the daemon's own
    used = math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_limit, resource.RLIM_INFINITY))
    try:
        return "done", function(*args, **kwargs)
    except MemoryError:
        return "memory", None
    except (GroundcrewError, Malformed) as error:
        return "refused", error
    except Exception:
        return "failed", traceback.format_exc()
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def end_with(parent: int) -> None:
    """End this process soon after its parent, whatever it is doing."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def main() -> None:
    """Serve with standard output kept for results, whatever a library prints.

    Signals that ask a whole group of processes to end are the daemon's: it ends its workers.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, results)


if __name__ == "__main__":
    main()
