"""Connections of open pages in a real browser: they use few of them, and reconnect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from reconciler.core.model import Change
from reconciler.core.waits import Wait, WaitOn
from tests.fakes.fleet import builds, name_of
from tests.harness.pages import READER, Served
from tests.pages.conftest import sign_in

BUILDING = builds(7)[0]
HIDDEN = """
let hidden = false;
Object.defineProperty(document, "hidden", { get: () => hidden });
addEventListener("test:hidden", (event) => {
  hidden = event.detail;
  document.dispatchEvent(new Event("visibilitychange"));
});
"""
"""Script that lets a test hide a tab: in a headless browser every tab counts as visible."""


@pytest.fixture
def tabs(browser: Browser, url: str) -> Iterator[BrowserContext]:
    """Yield a new profile whose pages can be hidden; the console may report refusals."""
    with browser.new_context(base_url=url) as context:
        context.set_default_timeout(15_000)
        context.add_init_script(HIDDEN)
        yield context


def hide(page: Page, hidden: bool = True) -> None:
    """Send the page the event that a browser sends if another tab, or this one, is chosen."""
    page.evaluate("h => dispatchEvent(new CustomEvent('test:hidden', {detail: h}))", hidden)


def change(served: Served, wait: str) -> None:
    """Write a change as a daemon would."""
    lease = served.store.acquire("test", 60.0)
    assert lease is not None
    record = replace(
        served.store.load().instances[name_of(1)], activation=None, wait=Wait(WaitOn.WAVE, wait)
    )
    served.store.write(lease, Change(instances=(record,)))


def test_eight_open_tabs_load_and_only_the_one_looked_at_is_connected(
    served: Served, tabs: BrowserContext
) -> None:
    """A browser has six connections; a tab that was hidden then shows what happened meanwhile."""
    pages: list[Page] = []
    for n in range(8):
        if pages:
            hide(pages[-1])
        page = tabs.new_page()
        page.goto("/" if n % 2 == 0 else f"/builds/{BUILDING.key}")
        expect(page.locator("#pulse")).to_have_text("live")
        pages.append(page)
    expect(pages[-1].locator("#log-state")).to_have_text("It is followed live.")
    pages[-1].wait_for_timeout(1500)
    assert served.app.state.streams.open == 2
    change(served, "the next wave")
    hide(pages[-1])
    hide(pages[0], hidden=False)
    row = pages[0].locator(".fleet tbody tr").filter(has_text=name_of(1))
    expect(row).to_contain_text("Waits on the next wave")


def test_a_log_goes_on_where_it_stopped_when_its_tab_is_looked_at_again(
    served: Served, tabs: BrowserContext
) -> None:
    """Every line appears once."""
    log = served.logs / f"{BUILDING.key}.log"
    log.write_text("one\n")
    page = tabs.new_page()
    page.goto(f"/builds/{BUILDING.key}")
    expect(page.locator("#log-state")).to_have_text("It is followed live.")
    for line in ("two", "three"):
        with log.open("a") as file:
            file.write(f"{line}\n")
        hide(page, hidden=False)
        expect(page.locator("#log")).to_contain_text(line)
        hide(page)
    assert page.locator("#log").text_content() == "one\ntwo\nthree\n"


def test_a_stream_that_was_refused_once_is_tried_again(
    served: Served, tabs: BrowserContext
) -> None:
    """After a 503 the page says that it is not live, then is live again, and shows changes."""
    page = tabs.new_page()
    answers = iter([503, 503])  # to the stream, and to the request for the reason

    def refuse(route: Route) -> None:
        status = next(answers, None)
        if status is None:
            route.continue_()
        else:
            route.fulfill(status=status, body="no")

    page.route("**/stream", refuse)
    page.goto("/")
    expect(page.locator("#pulse")).to_have_text("not live: connecting again")
    expect(page.locator("#pulse")).to_have_text("live")
    change(served, "the next wave")
    row = page.locator(".fleet tbody tr").filter(has_text=name_of(1))
    expect(row).to_contain_text("Waits on the next wave")


def test_a_login_that_ended_is_told(browser: Browser, tmp_path: Path) -> None:
    """After the token is revoked, the page asks to sign in, and does not say it is connecting."""
    other = Served(tmp_path, 3, read="token")
    try:
        with browser.new_context(base_url=other.start()) as context:
            context.add_init_script(HIDDEN)
            page = context.new_page()
            sign_in(page, READER)
            expect(page.locator("#pulse")).to_have_text("live")
            hide(page)
            other.write_tokens(operate="another")
            hide(page, hidden=False)
            expect(page.locator("#pulse")).to_have_text("not live: sign in again")
    finally:
        other.stop()
