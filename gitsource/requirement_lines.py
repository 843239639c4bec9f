"""Advice for lines copied from a requirements.txt that are not valid here.

It serves `requirements` and the lines of constraints files alike. Only a PEP 508 requirement from
an index, or an in-repo package, is accepted; for everything else the answer names the key or the
spelling that does the same here. Every check takes time in proportion to the line's length.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from gitsource.addresses import is_archive, name_in, without_login
from gitsource.foreign_versions import CARET, caret, translated

LINE_LIMIT = 4096  # characters; parsing a line may take longer than in proportion to it
SHOWN = 80  # characters of a user's text that are repeated


class Kind(Enum):
    """Use of a line, with an example of a valid one."""

    REQUIREMENT = "pandas>=2.2"
    CONSTRAINT = "numpy<2"


@dataclass(frozen=True, slots=True)
class InRepo:
    """Requirement for a package of this repo: `name[extra] @ ./path`."""

    name: str
    extras: tuple[str, ...]
    path: str

    @property
    def text(self) -> str:
        """The name with its extras, in normal form."""
        return f"{self.name}[{','.join(self.extras)}]" if self.extras else self.name


NAMED = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?) ?(?:\[([^\[\]]*)\])? ?")
EXTRA = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VARIABLE = re.compile(r"\$\{?[A-Za-z_]|\{\{|%\(")
INSTALL = re.compile(r"(?:python3? -m )?(?:uv )?(?:pip3?|poetry|conda|uv) (?:install|add) +")
NUMBER = re.compile(r"latest|[0-9][0-9A-Za-z.]*")
EDITABLE = re.compile(r"\A(?:-e|--editable)[=\s]*")
SCHEMES = ("git+", "hg+", "svn+", "bzr+", "http://", "https://", "ssh://", "file:", "git@", "s3://")
LOCAL = re.compile(r"[/~]|[A-Za-z]:[\\/](?!/)")  # the beginning of a path on one machine
OF_PYTHON = "remove it; the Python is the one of the Airflow image"


def _spaced(text: str) -> str:
    """Return a text with single spaces, on which the patterns here are linear."""
    return " ".join(text.split())


def in_repo(text: str) -> InRepo | None:
    """Return the in-repo package that a requirement names, or None for any other requirement."""
    name, _, path = text.partition("@")
    path = path.strip()
    if not path.startswith("."):
        return None
    match = NAMED.fullmatch(_spaced(name))
    if match is None:
        return None
    extras = [extra.strip() for extra in (match[2] or "").split(",") if extra.strip()]
    if not all(EXTRA.fullmatch(extra) for extra in extras):
        return None
    return InRepo(match[1], tuple(sorted({canonicalize_name(e) for e in extras})), path)


def name_of(text: str) -> str:
    """Return the normalised name at the start of a valid requirement."""
    match = NAMED.match(text.strip())
    return canonicalize_name(match[1]) if match is not None else ""


def advice(line: str, kind: Kind) -> str:
    """Return what to write instead of a line, or "" if it is valid."""
    text = line.strip()
    if len(text) > LINE_LIMIT:
        return f"it is longer than {LINE_LIMIT} characters; write one {_noun(kind)} a line"
    if not line.isprintable():
        return f"it has a control character; write it in one line, such as {kind.value}"
    item = _without_marks(text)
    answer = _advice(item, kind)
    return answer or (f"write {shown(item)}" if item != text else "")


def _without_marks(text: str) -> str:
    """Return an item of a list of TOML or YAML without what surrounds it there."""
    item = text.removeprefix("- ").removeprefix("* ").strip()
    quoted = item.removesuffix(",").strip()
    if len(quoted) > 1 and quoted[0] in "\"'" and quoted[-1] == quoted[0]:
        return quoted.strip("\"'").strip() or item
    return item


def _advice(text: str, kind: Kind) -> str:
    for rule in (_option, _decoration, _source, _table):
        answer = rule(text, kind)
        if answer:
            return answer
    if in_repo(text) is not None:
        return ""  # `_source` has ensured that
    try:
        parsed = Requirement(text)
    except (InvalidRequirement, RecursionError):
        return _specifier(text, kind)
    if kind is Kind.CONSTRAINT and parsed.extras:
        return f"it has extras; write {parsed.name}{parsed.specifier} without them"
    return OF_PYTHON if canonicalize_name(parsed.name) == "python" else ""


def without_comment(line: str) -> str:
    """Return a line without its comment, which begins with a # at the start or after a space."""
    begin = line.find("#")
    while begin > 0 and not line[begin - 1].isspace():
        begin = line.find("#", begin + 1)
    return (line if begin < 0 else line[:begin]).strip()


# ------------------------------------------------------------------------------ options of pip


def option_of(text: str) -> tuple[str, str]:
    """Return pip's option at the start of a line, in its short form, and its value."""
    if not text.startswith("-"):
        return "", ""
    option, *rest = re.split(r"[=\s]", text, maxsplit=1)
    value = rest[0] if rest else ""
    if len(option) > 2 and option[1] != "-":  # -rfile
        option, value = text[:2], text[2:]
    return LONG.get(option, option), value.strip().strip("\"'")


def _option(text: str, kind: Kind) -> str:
    option, value = option_of(text)
    if not option:
        return ""
    explain = OPTIONS.get(option)
    if explain is None:
        return f"options of pip are not supported; write {_noun(kind)}s alone, such as {kind.value}"
    return explain(value, kind)


def _of_file(value: str, kind: Kind) -> str:
    if kind is Kind.CONSTRAINT:
        name = shown(value) or "that file"
        return f"files cannot be included; add {name} to the key `constraints` as well"
    if "://" in value:
        return (
            f"save {shown(without_login(value))} as a file in the team's folder, and name it in "
            f"the key `requirements`"
        )
    name = shown(posixpath.basename(value)) or "requirements.txt"
    return f"name a file of the team's folder without the option: requirements: [{name}]"


def _of_constraint(value: str, _kind: Kind) -> str:
    answer = "the versions in the Airflow image hold anyway and need no constraints file"
    if "://" in value:
        return (
            f"{answer}; save what else you need of {shown(without_login(value))} as a file in the "
            f"team's folder, and name it in the key `constraints`"
        )
    name = shown(posixpath.basename(value)) or "constraints.txt"
    return f"name the file in the key `constraints`: constraints: [{name}] ({answer})"


def _of_index(value: str, _kind: Kind) -> str:
    url = shown(without_login(value)) if "://" in value else "https://host.example/simple/"
    return (
        f"describe the index in the key `indexes`, with the packages that come from it: "
        f"indexes: [{{name: corp, url: {url}, packages: [acme-*]}}]; a name and password go into "
        f"a secret that `credentials` names"
    )


def _of_editable(value: str, kind: Kind) -> str:
    if kind is Kind.CONSTRAINT:
        return f"it is not a version; write name==version, such as {kind.value}"
    return _source(value, kind) or _folder_words("", "", value)


def _says(answer: str) -> Callable[[str, Kind], str]:
    return lambda _value, _kind: answer


LONG: Mapping[str, str] = {
    "--requirement": "-r",
    "--constraint": "-c",
    "--editable": "-e",
    "--find-links": "-f",
    "--index-url": "-i",
    "--extra-index-url": "-i",
    "--pypi-url": "-i",
    "--index": "-i",
    "--default-index": "-i",
    "--upgrade": "-U",
    "--only-binary": "--prefer-binary",
    "--config-settings": "--config-setting",
    "--global-option": "--config-setting",
    "--install-option": "--config-setting",
    "-C": "--config-setting",
}
OPTIONS: Mapping[str, Callable[[str, Kind], str]] = {
    "-r": _of_file,
    "-c": _of_constraint,
    "-i": _of_index,
    "-f": _says(
        "no folder of wheels is searched; upload them to a package index and describe it in the "
        "key `indexes`, or commit their source as an in-repo package: acme @ ./packages/acme"
    ),
    "-e": _of_editable,
    "-U": _says("remove it; `groundcrew refresh` resolves to the newest versions"),
    "--hash": _says("remove it; the lock records the hash of every file"),
    "--require-hashes": _says("remove it; the lock records the hash of every file"),
    "--no-binary": _says("name the package in the key `sourceBuilds`: it may be built from source"),
    "--prefer-binary": _says("remove it; nothing but wheels is used unless `sourceBuilds` says so"),
    "--pre": _says("name the pre-release in the requirement itself, such as acme>=2.0rc1"),
    "--no-index": _says("remove it; `indexes` says which packages come from which index"),
    "--no-deps": _says("remove it; what a package needs is always installed with it"),
    "--trusted-host": _says(
        "give the index its certificate instead: `caBundle` in the key `indexes`"
    ),
    "--config-setting": _says(
        "remove it; variables and pins of a package's build belong into the key `build`"
    ),
}


# ----------------------------------------------------------------------- text around a requirement


def _decoration(text: str, kind: Kind) -> str:
    """Return advice for a valid requirement inside syntax that only pip or a shell knows."""
    if INSTALL.match(text):
        return f"write the package alone, such as {kind.value}, without the command"
    if text.endswith("\\"):
        return f"lines cannot be continued; write each {_noun(kind)} in one line"
    bare = without_comment(text)
    if bare != text and kind is Kind.REQUIREMENT:
        item = shown(bare) or kind.value
        return f"move the comment behind the item, outside of any quotes: - {item}  # why"
    if " --" in text:
        option = text[text.index(" --") + 1 :]
        left = text[: text.index(" --")].strip()
        if option.startswith("--hash"):
            return f"write {shown(left)} alone; the lock records the hash of every file"
        return f"write {shown(left)} alone; {_option(option, kind)}"
    if VARIABLE.search(text):
        return f"variables are not replaced; write the text itself, such as {kind.value}"
    return ""


# ----------------------------------------------------------------- paths, archives and addresses


def _source(text: str, kind: Kind) -> str:
    """Return advice for a path or a URL, with or without a name before it."""
    name, listed, source = _named_place(text)
    if not source:
        return ""
    if name and CARET.fullmatch(source):  # as on Poetry's command line
        return f"write {name}{listed}{caret(source)}"
    if name and NUMBER.fullmatch(source):
        return f"write {name}{listed}" + ("" if source == "latest" else f"=={source}")
    if kind is Kind.CONSTRAINT:
        return f"it is a path or an address; write {name or 'name'}==version instead"
    remote = "://" in source or source.lower().startswith(SCHEMES)
    path, semicolon, _ = source.partition(";")
    if is_archive(path.partition("#")[0].strip()):
        return _archive_words(path.partition("#")[0].strip())
    if remote:
        name = name or name_in(source)
        return (
            f"a requirement comes from an index or from this repo, not from git or another "
            f"address; upload {shown(name)} to a package index and write {shown(name)}>=version, "
            f"or commit its source and write `{shown(name)} @ ./packages/{shown(name)}`"
        )
    if LOCAL.match(source):
        return (
            f"a path of one machine is not the same elsewhere; commit the package to this repo and "
            f"write `{shown(name or 'acme')} @ ./packages/{shown(name or 'acme')}`"
        )
    if semicolon:
        return "an in-repo package cannot have markers; remove everything from the `;` on"
    if "[" not in source and in_repo(text) is not None:
        return ""
    return _folder_words(name, listed, source)


def _table(text: str, kind: Kind) -> str:
    """Return advice for a dependency with a table, as in Poetry's part of a pyproject.toml."""
    if "{" not in text:
        return ""
    try:
        ((name, table),) = tomllib.loads(text).items()
    except (ValueError, RecursionError):
        return ""
    if not isinstance(table, dict) or not EXTRA.fullmatch(name):
        return ""
    extras = table.get("extras") if kind is Kind.REQUIREMENT else None
    listed = f"[{','.join(map(str, extras))}]" if isinstance(extras, list) and extras else ""
    for key in ("path", "file", "git", "url"):
        if key in table:
            source = str(table[key])
            is_git = key == "git" and not source.lower().startswith(SCHEMES)
            line = f"{name}{listed} @ {'git+' if is_git else ''}{source}"
            return _source(line, kind) or _folder_words(name, listed, source)
    versions = translated(str(table.get("version", "*")))
    wanted = f"{name}{listed}{versions}"
    return f"write {shown(wanted)}" if versions is not None and _is_sound(wanted) else ""


def _named_place(text: str) -> tuple[str, str, str]:
    """Return (name, extras in brackets, path or URL) of a line; empty texts if it has none.

    A path may be written as for pip, after `file:`.
    """
    head, at, source = text.partition("@")
    match = NAMED.fullmatch(_spaced(head))
    is_place = text.startswith(".") or LOCAL.match(text) is not None
    if is_place or text.lower().startswith(SCHEMES) or is_archive(text):
        name, listed, source = "", "", text
    elif not at or match is None:
        return "", "", ""
    else:
        name, listed, source = match[1], f"[{match[2]}]" if match[2] else "", source.strip()
    if source.startswith("file:") and not source.startswith("file:/"):
        source = source.removeprefix("file:")
    return name, listed, source


def _folder_words(name: str, listed: str, path: str) -> str:
    return in_repo_advice(_package_at(name, listed, path))


def _package_at(name: str, listed: str, path: str) -> InRepo:
    """Return the in-repo package at a path; without a name, it has that of its folder."""
    path, _, bracket = path.partition("[")
    name = name or posixpath.basename(posixpath.normpath(path))
    if not EXTRA.fullmatch(name):
        name, path = "acme", "./packages/acme"
    if not path.startswith("."):
        path = f"./{path}"
    extras = [extra.strip() for extra in (listed or bracket).strip("[]").split(",")]
    return InRepo(name, tuple(extra for extra in extras if EXTRA.fullmatch(extra)), path)


def in_repo_advice(package: InRepo) -> str:
    """Return how to write a requirement for an in-repo package."""
    return f"write an in-repo package as `{shown(package.text)} @ {shown(package.path)}`"


def package_meant(line: str) -> InRepo | None:
    """Return the in-repo package that the advice for a line is about, or None."""
    text = EDITABLE.sub("", line.strip()).strip("\"'")
    name, listed, source = _named_place(text)
    package = _package_at(name, listed, source or text)
    return package if advice(line, Kind.REQUIREMENT) == in_repo_advice(package) else None


def _archive_words(path: str) -> str:
    """Return advice for a built or archived distribution."""
    name = posixpath.basename(path)
    wanted = "acme==1.0"
    try:
        if name.endswith(".whl"):
            dist, version, _, _ = parse_wheel_filename(name)
        else:
            dist, version = parse_sdist_filename(name)
        wanted = f"{dist}=={version}"
    except (InvalidWheelFilename, InvalidSdistFilename):
        pass
    return (
        f"no wheel or archive is read from a path or an address; upload it to a package index and "
        f"write {shown(wanted)}, or commit its source and write acme @ ./packages/acme"
    )


# ------------------------------------------------------------------------------------ versions


def _specifier(text: str, kind: Kind) -> str:
    """Return advice for a line that begins like a requirement and has versions of another tool."""
    text = _spaced(text).rpartition("::")[2]  # after the channel of conda
    match = NAMED.match(text)
    if match is None:
        return f"it is not a {_noun(kind)}; write for example {kind.value}"
    name = match[1] + (f"[{match[2]}]" if match[2] and kind is Kind.REQUIREMENT else "")
    rest, semicolon, marker = text[match.end() :].strip().partition(";")
    rest = rest.strip()
    equals = re.fullmatch(r"=\s*[\"'](.*)[\"']", rest)  # as in a TOML file
    versions = re.sub(r"[\"']", "", equals[1] if equals else rest).strip("() ")
    instead = translated(versions)
    others = [other for other in re.split(r"[\s,]+", rest) if other]
    are_names = all(NAMED.fullmatch(other) for other in others)
    if instead is None and (are_names or all(map(_is_sound, text.split()))):
        return f"write each {_noun(kind)} as an item of its own"
    if instead is None or not _is_sound(name):
        return f"its versions cannot be read; write for example {match[1]}>=1.2,<2"
    if semicolon and _is_sound(f"{name}{instead}") and _is_sound(f"{name};{marker}"):
        instead += f"; {marker.strip()}"
    elif semicolon:
        return (
            f"what follows the `;` is not a valid marker; write for example "
            f"{shown(name + instead)}; python_version < '3.12'"
        )
    if canonicalize_name(match[1]) == "python":
        return OF_PYTHON
    return f"write {shown(name + instead)}"


def _is_sound(text: str) -> bool:
    try:
        Requirement(text)
    except (InvalidRequirement, RecursionError):
        return False
    return True


def _noun(kind: Kind) -> str:
    return "requirement" if kind is Kind.REQUIREMENT else "constraint"


def shown(text: str) -> str:
    """Return the beginning of a user's text that fits into a message."""
    short = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return "".join(c if c.isprintable() else "?" for c in short)
