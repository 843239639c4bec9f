"""Models of the documents on the share, as far as the daemon reads them back.

The daemon wrote them, and anything with access to the share may have changed them since. A document
that does not match its model counts as missing: what it describes is written or built again.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from reconciler.documents import Document, Rows

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0, lt=1 << 53)]


class PathRow(Document):
    """Folder of modules in a store entry, relative to the share's root."""

    path: Annotated[str, Field(pattern=r"^store/sha256/[0-9a-f]{2}/[0-9a-f]{64}/")]
    pth: bool = False

    @property
    def digest(self) -> str:
        """The digest of its store entry."""
        return self.path.split("/")[3]


class Distribution(Document):
    """Distribution that a build installs; `sha256` is that of its wheel."""

    name: str
    version: str = ""
    sha256: str


class BuildDocument(Document):
    """build.json: description of a build for the loader and for the daemon."""

    build: str
    abi: str = ""
    runtime: str = ""
    airflow: str = ""
    team: str = ""
    recipe: str = ""
    entries: Rows[Digest] = Field(default_factory=list)
    paths: Rows[PathRow] = Field(default_factory=list)
    bin: Rows[str] = Field(default_factory=list)
    jars: Rows[str] = Field(default_factory=list)
    env: dict[str, str] = Field(default_factory=dict)
    distributions: Rows[Distribution] = Field(default_factory=list)

    @property
    def on_path(self) -> list[str]:
        """The digests of the store entries that are put on sys.path, in order."""
        return [row.digest for row in self.paths]

    @property
    def own_entry(self) -> str | None:
        """The store entry with the definition's own files, if it has any."""
        on_path = set(self.on_path)
        return next((digest for digest in self.entries if digest not in on_path), None)


class PackRow(Document):
    """Pack of a store entry that a build is loaded from."""

    pack: Digest
    bytes: Bytes
    xz: bool = False
    whole: bool = False


class HotDocument(Document):
    """hot.json: packs of a build by the digests of their store entries."""

    packs: dict[Digest, PackRow] = Field(default_factory=dict)


class NamedRow(Document):
    """Build that a pointer names for one runtime."""

    build: str
    abi: str
    airflow: str
    listing: str = ""


class PointerDocument(Document):
    """pointer.json: builds of an instance by runtime key, the newest last."""

    builds: dict[str, NamedRow]
    load_into: Rows[str] = Field(default_factory=list, alias="loadInto")
    dropped: Rows[str] = Field(default_factory=list)


class EntryDocument(Document):
    """entry.json: description of a store entry that is a folder."""

    bytes: Bytes | None = None
    facts: dict[str, Any] | None = None


class MarkerDocument(Document):
    """Marker of a share."""

    id: str


class ReportDocument(Document):
    """Report of a verification; the build's own code wrote its warnings."""

    modules: int | None = None
    seconds: float | None = None
    opens: int | None = None
    files: int | None = None
    bytes: int | None = None
    warnings: Rows[str] = Field(default_factory=list)
    packages: Rows[tuple[str, int, int]] = Field(default_factory=list)  # name, files, bytes
