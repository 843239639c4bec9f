"""A fleet behind the HTTP server, and a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.harness.pages import OPERATOR, Served

FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-gpu",
)


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a server of twelve instances in all states; everybody on this machine may read."""
    server = Served(tmp_path_factory.mktemp("served"), 12, read="anyone")
    yield server
    server.stop()


@pytest.fixture
def url(served: Served) -> str:
    """Return the address of the served fleet."""
    return served.start()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Yield Debian's Chromium, headless."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium; apt-get install chromium, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """Yield a new profile; any error in the browser's console fails the test."""
    with browser.new_context(base_url=url) as context:
        wrong: list[str] = []
        context.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        context.on("weberror", lambda e: wrong.append(str(e.error)))
        context.set_default_timeout(15_000)
        yield context
        quiet = ("ERR_INCOMPLETE_CHUNKED", "status of 404", "status of 401")
        assert [w for w in wrong if not any(q in w for q in quiet)] == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """Return a page of the profile."""
    return context.new_page()


def sign_in(page: Page, token: str = OPERATOR) -> None:
    """Sign in through the form."""
    page.goto("/login")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
