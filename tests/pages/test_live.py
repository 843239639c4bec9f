"""Live pages in a real browser: they follow the daemon's records, and operators act on them."""

from __future__ import annotations

import time
from dataclasses import replace

from playwright.sync_api import Page, expect

from reconciler.core.model import Change, Options, Suspension, Verb
from reconciler.core.phases import BuildPhase
from reconciler.core.waits import Wait, WaitOn
from tests.fakes.events import event as stored_event
from tests.fakes.fleet import MARKUP, builds, instance, name_of
from tests.harness.pages import READER, Served, write
from tests.pages.conftest import sign_in

BUILDING = builds(7)[0]


def test_the_fleet_is_live(served: Served, page: Page) -> None:
    """Records of a daemon appear without a reload, and the reader's place is kept."""
    page.goto("/")
    expect(page.locator("#pulse")).to_have_text("live")
    row = page.locator(".fleet tbody tr").filter(has_text=name_of(1))
    expect(row).to_contain_text("Draining")
    record = served.store.load().instances[name_of(1)]
    fresh = replace(instance(0), name=record.name, definition=record.definition)
    fresh = replace(
        record, activation=None, wait=Wait(WaitOn.WAVE, "the next wave"), last=fresh.last
    )
    write(served, Change(instances=(fresh,)))
    expect(row).to_contain_text("Waits on the next wave")
    expect(row).not_to_contain_text("Draining")


def test_an_open_form_is_not_taken_away(served: Served, page: Page) -> None:
    """Nothing moves while someone is about to roll back; afterwards it does."""
    sign_in(page)
    page.goto(f"/instances/{name_of(0)}")
    expect(page.locator("#pulse")).to_have_text("live")
    summary = page.locator("summary:has-text('Roll back')")
    summary.click()
    record = served.store.load().instances[name_of(0)]
    write(
        served,
        Change(
            instances=(replace(record, wait=Wait(WaitOn.WAVE, "the next wave"), suspended=True),)
        ),
    )
    page.wait_for_timeout(4000)
    expect(page.get_by_role("button", name="Roll back")).to_be_visible()
    expect(page.locator("main")).not_to_contain_text("It is suspended")
    summary.click()
    expect(page.locator("main")).to_contain_text("It is suspended")


def test_a_log_is_followed_live_and_ends(served: Served, page: Page) -> None:
    """Lines appear as they are written, as text; updates stop when the build ends."""
    log = served.logs / f"{BUILDING.key}.log"
    log.write_text("resolving\n")
    page.goto(f"/builds/{BUILDING.key}")
    expect(page.locator("#log")).to_have_text("resolving\n")
    expect(page.locator("#log-state")).to_have_text("It is followed live.")
    with log.open("a") as file:
        file.write(f"building {MARKUP}\n")
    expect(page.locator("#log")).to_contain_text(f"building {MARKUP}")
    assert page.locator("#log").locator("*").count() == 0
    record = served.store.load().builds[BUILDING.key]
    phases = (*record.phases, ("Failed", time.time()))
    write(served, Change(builds=(replace(record, phase=BuildPhase.FAILED, phases=phases),)))
    expect(page.locator("#log-state")).to_have_text("It has ended.")
    expect(page.locator(".states")).to_contain_text("Failed")


def test_operating_is_offered_to_operators_only(served: Served, page: Page) -> None:
    """A reader sees no action; an operator suspends, and sees the result."""
    sign_in(page, READER)
    page.goto(f"/instances/{name_of(0)}")
    expect(page.get_by_role("heading", name="Actions")).to_have_count(0)
    page.get_by_role("button", name="Sign out").click()
    sign_in(page)
    page.goto(f"/instances/{name_of(0)}")
    page.locator("summary:has-text('Suspend')").click()
    page.get_by_role("button", name="Suspend").click()
    expect(page.get_by_text("On-call engineer (HTTP) asked for suspend")).to_be_visible()
    (request,) = served.store.requests()
    record = served.store.load().instances[name_of(0)]
    told = stored_event(
        time.time(),
        "Suspended",
        f"instance/{name_of(0)}",
        record.team,
        "Suspended",
        f"by {request.who}",
        data={"who": request.who},
    )
    write(
        served,
        Change(
            instances=(replace(record, suspended=True),),
            events=(told,),
            finished_requests=(request.id,),
        ),
    )
    expect(page.get_by_text(f"Request {request.id} was taken up")).to_be_visible()
    expect(page.locator(".history")).to_contain_text("by On-call engineer (HTTP)")
    expect(page.locator("summary:has-text('Resume')")).to_be_visible()


def test_a_suspension_says_why_and_when_it_ends(served: Served, page: Page) -> None:
    """The form takes a reason and an end; the page shows both to everybody."""
    sign_in(page)
    page.goto(f"/instances/{name_of(0)}")
    page.locator("summary:has-text('Suspend')").click()
    page.get_by_label("Reason").fill(MARKUP)
    page.get_by_label("It ends").select_option("in a day")
    before = time.time()
    page.get_by_role("button", name="Suspend").click()
    page.wait_for_url("**asked=*")
    (request,) = served.store.requests()
    assert request.options.reason == MARKUP
    assert before + 86400 <= request.options.until <= time.time() + 86400
    suspension = Suspension("On-call engineer", MARKUP, request.options.until)
    record = served.store.load().instances[name_of(0)]
    change = Change(
        instances=(replace(record, suspended=True, suspension=suspension),),
        finished_requests=(request.id,),
    )
    write(served, change)
    note = page.locator(".note.suspended")
    expect(note).to_contain_text("Suspended by On-call engineer until 2")
    expect(note).to_contain_text(MARKUP)


def test_an_activation_is_begun_and_aborted_where_that_makes_sense(
    served: Served, page: Page
) -> None:
    """One that waits on a window can be activated now, one that runs can be aborted."""
    sign_in(page)
    page.goto(f"/instances/{name_of(0)}")
    expect(page.locator("summary:has-text('Abort'), summary:has-text('Activate')")).to_have_count(0)
    page.goto(f"/instances/{name_of(1)}")
    page.locator("summary:has-text('Abort')").click()
    page.get_by_role("button", name="Abort").click()
    page.wait_for_url("**asked=*")
    page.goto(f"/instances/{name_of(2)}")
    page.locator("summary:has-text('Activate')").click()
    page.get_by_label("Do not wait for the maintenance window either").check()
    page.get_by_role("button", name="Activate").click()
    page.wait_for_url("**asked=*")
    abort, activate = served.store.requests()
    assert (abort.verb, abort.target) == (Verb.ABORT, f"instance/{name_of(1)}")
    assert (activate.verb, activate.target) == (Verb.ACTIVATE, f"instance/{name_of(2)}")
    assert activate.options == Options(now=True)
