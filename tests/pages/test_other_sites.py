"""A link on another site's page, as in messages and commit statuses, in a real browser."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, Page, expect

from tests.fakes.fleet import name_of
from tests.fakes.receiver import Receiver, Said
from tests.harness.pages import Served
from tests.pages.conftest import sign_in


def test_a_link_from_another_site_finds_one_signed_in(
    served: Served, url: str, page: Page, context: BrowserContext
) -> None:
    """It leads to its target, and the forms of a tab that was open before still work."""
    link = f'<link rel="icon" href="data:,"><a href="{url}/instances/{name_of(0)}">see</a>'
    chat = Receiver(lambda method, path, body: Said(200, {"Content-Type": "text/html"}, link))
    sign_in(page)
    page.goto(f"/instances/{name_of(0)}")
    other = context.new_page()
    other.goto(chat.root.replace("127.0.0.1", "localhost"))  # a site of another name
    other.get_by_role("link", name="see").click()
    expect(other.get_by_role("button", name="Sign out")).to_be_visible()
    page.locator("summary:has-text('Roll back')").click()
    page.get_by_role("button", name="Roll back").click()
    page.wait_for_url("**asked=*")
    chat.close()
    assert len(served.store.requests()) == 1
