"""Worker in a Job's pod: carries out the daemon's commands in parallel, one in each lane.

`worker.py <folder> <lanes> <idle>`: the folder is the pod's only writable part of the share. The
daemon replaces ask-<lane>.json by rename, the worker answer-<lane>.json; both existed when the pod
started, so that a share that caches directories shows each change at the next open. The daemon
writes `alive` repeatedly, and it is answered in here.json: without that the worker ends after
`idle` seconds. Output goes to the pod's log, as `<lane> <line>`: it is for people, and may be cut.
Results for the daemon are in files, whose sizes and digests are in the answer. Standard library
only, Python 3.9 and newer.
"""

import contextlib
import hashlib
import json
import os
import signal
import site
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

LIMIT = 4 << 20  # characters of output in an answer
LINE_LIMIT = 64 << 10  # bytes; a longer line is logged in pieces
LOOK = 0.1  # seconds between two checks of a lane's request

_printing = threading.Lock()


def _read(path: Path) -> Any:
    """Return a document of the daemon, or {} if it cannot be read just now."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _write(path: Path, document: Any) -> None:
    temp = path.with_name(path.name + ".new")
    with temp.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    temp.rename(path)


def _say(line: str) -> None:
    with _printing:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _environment(asked: Any) -> Any:
    """Return the image's environment with the requested variables; PYTHONUSERBASE is preserved."""
    environment = dict(os.environ)
    environment.setdefault("PYTHONUSERBASE", site.getuserbase())
    environment.update(asked)
    return environment


def _kill(process: Any) -> None:
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _describe_file(path: Path) -> Any:
    """Return [size, SHA-256] of a file, or None if it is not a regular file."""
    try:
        handle = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        digest, size = hashlib.sha256(), 0
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
            size += len(chunk)
        os.fsync(handle)
    return [size, digest.hexdigest()]


def _describe_results(paths: Any) -> Any:
    """Return the files at these paths, and those in the folders at these paths, with digests."""
    descriptions = {}
    for path in map(Path, paths):
        files = sorted(path.iterdir()) if path.is_dir() and not path.is_symlink() else [path]
        descriptions.update({str(file): _describe_file(file) for file in files})
    return {name: described for name, described in descriptions.items() if described is not None}


def _run(lane: int, ask: Any) -> Any:
    """Carry out one command; return its answer."""
    process = subprocess.Popen(
        ask["command"],
        cwd=ask["folder"],
        env=_environment(ask["environment"]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    kept: list[str] = []

    def read() -> None:
        size = 0
        assert process.stdout is not None
        while True:
            raw = process.stdout.readline(LINE_LIMIT)
            if not raw:
                return
            line = raw.decode(errors="replace").rstrip("\n")
            size += len(line) + 1
            if size < LIMIT:
                kept.append(line)
            if not ask["quiet"]:
                _say(f"{lane} {line}")

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    late = False
    try:
        process.wait(ask["timeout"])
    except subprocess.TimeoutExpired:
        late = True
    _kill(process)  # or what it has left behind, which holds its output open
    code = process.wait()
    reader.join(10)
    return {
        "code": code,
        "timed_out": late,
        "lines": list(kept),
        "results": _describe_results(ask["results"]),
    }


def _serve(folder: Path, lane: int) -> None:
    ask_path, answer_path = folder / f"ask-{lane}.json", folder / f"answer-{lane}.json"
    done = 0
    while True:
        ask = _read(ask_path)
        number = ask.get("number", 0)
        if number <= done:
            time.sleep(LOOK)
            continue
        try:
            answer = _run(lane, ask)
        except (OSError, ValueError, KeyError) as error:
            answer = {"code": 127, "timed_out": False, "lines": [str(error)], "results": {}}
        answer["number"] = done = number
        text = json.dumps([answer["lines"], answer["results"]])
        answer["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        _write(answer_path, answer)


def _main() -> None:
    folder, lanes, idle = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    _say("- ready")  # a log that is followed responds with its first byte
    os.umask(0)  # the daemon, with another user, removes what is left here
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    for lane in range(lanes):
        threading.Thread(target=_serve, args=(folder, lane), daemon=True).start()
    seen = None
    heard = time.monotonic()
    while True:
        sign = _read(folder / "alive.json")
        if sign.get("end"):
            os._exit(0)
        if sign != seen:
            seen, heard = sign, time.monotonic()
            _write(folder / "here.json", sign)
        if time.monotonic() - heard > idle:
            _say(f"- nothing was heard of the daemon for {idle:g} s; ending")
            os._exit(3)
        time.sleep(0.2)


_main()
