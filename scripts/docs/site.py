"""Hook for mkdocs: gives project files outside docs/ that pages link to pages of their own.

A link such as `../deploy/prometheus/rules.yaml` works where the repository is browsed; on the site
it leads to a page with that file's text, or with a list if it is a directory. The hook also
completes the navigation: an entry that ends with `/` stands for all pages of that directory, and
pages that no entry names are listed under *More*.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]+)")
LARGEST = 64 * 1024  # bytes; larger files get no page
HIDDEN = "---\nsearch: {exclude: true}\n---\n"
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".json": "json", ".toml": "toml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation."""
    docs = Path(config.docs_dir)
    pages = sorted(str(p.relative_to(docs)) for p in docs.rglob("*.md"))
    nav = [_expanded(entry, pages) for entry in config.nav or []]
    listed = set(_leaves(nav))
    rest = [page for page in pages if page not in listed]
    config.nav = [*nav, {"More": rest}] if rest else nav
    return config


def _expanded(entry: Any, pages: list[str]) -> Any:
    """Return an entry with each `directory/` replaced by that directory's pages, README first."""
    if isinstance(entry, dict):
        return {title: _expanded(inside, pages) for title, inside in entry.items()}
    if isinstance(entry, list):
        return [_expanded(one, pages) for one in entry]
    if isinstance(entry, str) and entry.endswith("/"):
        directory_pages = [page for page in pages if page.startswith(entry)]
        return sorted(directory_pages, key=lambda page: (not page.endswith("README.md"), page))
    return entry


def _leaves(entry: Any) -> Iterator[str]:
    if isinstance(entry, dict):
        yield from _leaves(list(entry.values()))
    elif isinstance(entry, list):
        for one in entry:
            yield from _leaves(one)
    else:
        yield entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file and directory outside docs/ that a page links to."""
    for page in [f for f in files if f.is_documentation_page()]:
        for link in LINK.findall(page.content_string):
            target = _outside(page.src_uri, link)
            if target is not None:
                _add(files, config, target)
    return files


def _outside(page: str, link: str) -> Path | None:
    """Return the project file or directory that a link leads to, or None if it is in docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    target = ROOT / path
    outside = not path.startswith(("docs/", ".."))
    return target if outside and target.exists() else None  # mkdocs reports links to missing files


def _add(files: Files, config: MkDocsConfig, target: Path) -> None:
    uri = _uri(target)
    if files.get_file_from_path(uri) is not None:
        return
    inside = [p for p in _tracked(target) if p.stat().st_size <= LARGEST]
    text = _listing(target, inside) if target.is_dir() else _text(target)
    made = File.generated(config, uri, content=text, inclusion=InclusionLevel.NOT_IN_NAV)
    files.append(made)
    for path in inside:
        _add(files, config, path)


def _tracked(target: Path) -> Iterable[Path]:
    """Return the files of a directory, without Python's caches and hidden files."""
    if target.is_file():
        return []
    paths = (p for p in sorted(target.rglob("*")) if p.is_file())
    return [p for p in paths if "__pycache__" not in p.parts and not p.name.startswith(".")]


def _uri(target: Path) -> str:
    path = target.relative_to(ROOT).as_posix()
    return f"project/{path}/index.md" if target.is_dir() else f"project/{path}.md"


def _listing(target: Path, inside: Iterable[Path]) -> str:
    here = posixpath.dirname(_uri(target))
    lines = (f"- [`{p.relative_to(target)}`]({posixpath.relpath(_uri(p), here)})" for p in inside)
    return f"{HIDDEN}# {target.relative_to(ROOT)}/\n\n" + "\n".join(lines) + "\n"


def _text(target: Path) -> str:
    text = target.read_text()
    if target.suffix == ".md":
        return HIDDEN + text
    language = LANGUAGES.get(target.suffix, "text")
    return f"{HIDDEN}# {target.relative_to(ROOT)}\n\n````{language}\n{text}````\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that lead outside docs/ to those pages."""
    del config, files

    def replaced(match: re.Match[str]) -> str:
        target = _outside(page.file.src_uri, match[1])
        if target is None or page.file.src_uri.startswith("project/"):
            return match[1]
        return os.path.relpath(_uri(target), posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(replaced, markdown)
