"""Handmade wheels and sdists, and a real pypiserver on 127.0.0.1 that serves a folder of them.

They are a few hundred bytes each, so that a resolution and a build take a moment, and they can be
made invalid on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import socketserver
import sys
import tarfile
import tempfile
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tests.fakes.base import write_package

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its copy of bottle imports cgi
    before = list(sys.meta_path)
    import pypiserver
    from pypiserver.bottle_wrapper import bottle

    sys.meta_path[:] = before  # bottle's import hook makes every later import warn

_bottle_range = bottle._file_iter_range


def _range(file: BinaryIO, *rest: int) -> Iterator[bytes]:
    """Yield a part of a file, which bottle forgets to close."""
    with file:
        yield from _bottle_range(file, *rest)


bottle._file_iter_range = _range


def make_wheel(
    directory: Path,
    name: str,
    version: str = "1.0",
    files: Mapping[str, str] | None = None,
    requires: tuple[str, ...] = (),
    *,
    tag: str = "py3-none-any",
    metadata: str = "",
    bad_record: bool = False,
    links: Mapping[str, str] | None = None,
) -> Path:
    """Write a wheel; `files` default to one module of the distribution's name.

    `metadata` is added to METADATA, `links` are symlinks (path → target), and with `bad_record` the
    RECORD has different hashes than the files.
    """
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    contents = dict(files if files is not None else {f"{stem}.py": f'__version__ = "{version}"\n'})
    needs = "".join(f"Requires-Dist: {r}\n" for r in requires)
    contents[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}{metadata}"
    )
    contents[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: {tag}\n"
    )
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}-{version}-{tag}.whl"
    record = []
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in contents.items():
            hashed = text + "# not this\n" if bad_record else text
            digest = hashlib.sha256(hashed.encode()).digest()
            mark = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            record.append(f"{member},sha256={mark},{len(hashed.encode())}")
            archive.writestr(zipfile.ZipInfo(member), text)
        for member, target in (links or {}).items():
            link = zipfile.ZipInfo(member)
            link.create_system, link.external_attr = 3, 0o120777 << 16
            archive.writestr(link, target)
        record.append(f"{info}/RECORD,,")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "\n".join(record) + "\n")
    return path


def make_sdist(
    directory: Path,
    name: str,
    version: str = "1.0",
    modules: dict[str, str] | None = None,
    requires: tuple[str, ...] = (),
    *,
    preamble: str = "",
) -> Path:
    """Write an sdist that builds itself; `preamble` is code that its backend runs first."""
    stem = name.replace("-", "_")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{stem}-{version}.tar.gz"
    with tempfile.TemporaryDirectory() as made:
        source = Path(made) / f"{stem}-{version}"
        wanted = modules or {f"{stem}/__init__.py": f'__version__ = "{version}"\n'}
        write_package(source, name, version, wanted, requires)
        backend = source / "backend.py"
        backend.write_text(preamble + backend.read_text())
        (source / "PKG-INFO").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        with tarfile.open(path, "w:gz") as archive:
            archive.add(source, source.name)
    return path


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Server that handles several requests at once."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Handler that records requests instead of printing them."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        server = self.server
        assert isinstance(server, _Server)
        server.base_environ["groundcrew.asked"].append(self.path)


class IndexServer:
    """Running pypiserver; with `auth` (user, password), it requires basic auth."""

    def __init__(self, folder: Path, auth: tuple[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.asked: list[str] = []
        app = pypiserver.app(
            roots=[folder],
            authenticate=["list", "download", "update"] if auth else [],
            auther=lambda user, password: (user, password) == auth,
            password_file=None,
            disable_fallback=True,
            backend_arg="simple-dir",
        )
        self._server = make_server("127.0.0.1", 0, app, _Server, _Quiet)
        self._server.base_environ["groundcrew.asked"] = self.asked
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/simple/"

    def downloads(self) -> list[str]:
        """Return the names of the files that were downloaded."""
        return [path.rsplit("/", 1)[1] for path in self.asked if path.startswith("/packages/")]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
