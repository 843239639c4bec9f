"""The site built from docs/: no broken links, and examples that are valid."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from reconciler.settings import Settings
from scripts.docs import __main__ as generated
from tests.docs.blocks import FENCE, ROOT, Block, every


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout, as `make docs` does."""
    args = ["build", "--strict", "--config-file", str(root / "mkdocs.yml"), "--site-dir", str(out)]
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", *args],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site, built without a warning."""
    out = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_on_the_site_and_in_its_navigation(site: Path) -> None:
    """Pages that were added after the navigation was written are included."""
    start = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix().replace("README.md", "index.md")
        html = name.removesuffix(".md") + ".html"
        assert (site / html).is_file(), name
        assert f'href="{html}"' in start, f"{name} is not in the navigation"


def test_files_outside_have_pages(site: Path) -> None:
    """A file of the project with its text, a directory with its files; no link leaves the site."""
    rules = site / "project" / "deploy" / "prometheus" / "rules.yaml.html"
    assert "GroundcrewInstanceDegraded" in rules.read_text()
    listing = (site / "project" / "deploy" / "grafana" / "index.html").read_text()
    assert 'href="panels.py.html"' in listing
    for page in site.rglob("*.html"):
        for link in re.findall(r'href="([^"#?:]+)(?:#[^"]*)?"', page.read_text()):
            if not link.startswith("/"):  # the not-found page is served from anywhere
                assert (page.parent / link).resolve().is_relative_to(site), f"{page}: {link}"


def test_lists_count_on(site: Path) -> None:
    """Text inside a step is indented by four, or the site's next step would be 1 again."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT / "docs").as_posix().replace("README.md", "index.md")
        made = (site / (name.removesuffix(".md") + ".html")).read_text().count("<ol>")
        begun = re.findall(r"^ *1\. ", FENCE.sub("", page.read_text()), re.MULTILINE)
        assert made == len(begun), name


def test_no_page_asks_another_server(site: Path) -> None:
    """Fonts and scripts come from the site itself."""
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img)[^>]* src="(\w+:[^"]+)"', page.read_text())
        linked = re.findall(r'<link[^>]* href="(https?:[^"]+)"', page.read_text())
        assert loaded + linked == [], page


@pytest.mark.parametrize("link", ["nowhere.md", "../deploy/nowhere.yaml", "settings.md#nowhere"])
def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path, link: str) -> None:
    """The error names the link."""
    for name in ("docs", "deploy", "environments.example", "scripts/docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "index.md").open("a") as page:
        page.write(f"\n[wrong]({link})\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stdout + done.stderr


def test_generated_pages_that_are_not_current_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` names them; pages just written are current."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(generated, "ROOT", tmp_path)
    for arguments in ([], ["--check"]):
        monkeypatch.setattr("sys.argv", ["docs", *arguments])
        assert generated.main() == 0
    (tmp_path / "docs" / "events.md").write_text("# Events\n")
    assert generated.main() == 1
    assert capsys.readouterr().err == "docs/events.md is not current; run `make generate`\n"


def _of(language: str) -> list[Block]:
    return [block for block in every() if block.language == language]


@pytest.mark.parametrize("block", _of("toml"), ids=str)
def test_settings_that_are_shown_are_settings(block: Block) -> None:
    """Every TOML block that is not a package's is accepted by the daemon."""
    if not block.title.endswith("pyproject.toml"):
        Settings(**tomllib.loads(block.text))


@pytest.mark.parametrize("block", _of("yaml"), ids=str)
def test_yaml_that_is_shown_is_yaml(block: Block) -> None:
    """It can be parsed, whatever its purpose."""
    assert list(yaml.safe_load_all(block.text))


def test_every_setting_is_told() -> None:
    """Its name and its meaning; the model describes all of them."""
    text = (ROOT / "docs" / "settings.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    bare = [row for row in rows if row.rstrip(" |").endswith("`") and row.endswith("|  |")]
    assert bare == []
