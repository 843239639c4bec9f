"""Names of in-repo packages in the advice for requirements that give only their folders."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from gitsource.requirement_lines import in_repo_advice
from gitsource.shared_files import SharedFiles
from gitsource.typed import ReadFile


def folders(read: ReadFile) -> dict[str, None]:
    """Return the folders of the packages that a file's findings are about.

    Those of other teams are left out, as no file of a team costs another one's time.
    """
    own = (f"{posixpath.dirname(read.path)}/", "shared/")
    paths = [_path(read, package.path) for _, package in read.packages]
    return {posixpath.dirname(path): None for path in paths if path.startswith(own)}


def with_names(read: ReadFile, shared: SharedFiles) -> ReadFile:
    """Return a file whose findings call each package what its project file calls it."""
    if not read.packages:
        return read
    names = {
        project.path: project.name
        for folder in folders(read)
        for project in shared.projects(folder)
    }
    findings = list(read.findings)
    for number, package in read.packages:
        named = replace(package, name=names.get(_path(read, package.path), package.name))
        message = findings[number].message.replace(in_repo_advice(package), in_repo_advice(named))
        findings[number] = replace(findings[number], message=message)
    return replace(read, findings=tuple(findings))


def _path(read: ReadFile, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(read.path), path))
