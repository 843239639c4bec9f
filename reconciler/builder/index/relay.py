"""Proxy inside the sandbox, which has no network: forwards connections to the package index.

`python -I relay.py <port> <folder> <command>…` listens on 127.0.0.1:<port> while the command runs,
and forwards each connection to the unix socket `index.sock` in the folder. Standard library only.
"""

import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress

SOCKET = "index.sock"


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _accept(listener: socket.socket, folder: int) -> None:
    while True:
        client, _ = listener.accept()
        index = socket.socket(socket.AF_UNIX)
        try:
            index.connect(f"/proc/self/fd/{folder}/{SOCKET}")  # a socket's path may not be long
        except OSError:
            client.close()
            continue
        for pair in ((client, index), (index, client)):
            threading.Thread(target=_carry, args=pair, daemon=True).start()


def _main() -> None:
    port, folder, *command = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", int(port)))
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    threading.Thread(target=_accept, args=(listener, handle), daemon=True).start()
    code = subprocess.run(command, check=False).returncode
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    _main()
