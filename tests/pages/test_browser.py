"""Pages in a real browser: filters, texts, keyboard, phone, light and dark, WCAG AA."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect

from reconciler.core.definitions import Wave
from reconciler.core.model import Change, Problem, Verb
from reconciler.core.reasons import Reason
from reconciler.core.waits import Wait, WaitOn
from tests.fakes.events import event as stored_event
from tests.fakes.fleet import MARKUP, REVISION, build_id, builds, environment, instance, name_of
from tests.harness.pages import READER, Served, write
from tests.pages.conftest import sign_in

BUILDING, FAILED, READY = builds(7)[0], builds(8)[0], builds(0)[0]
LONG = "w" * 63  # as long as a name may be
EVERY = (
    "/",
    "/environments",
    "/events",
    "/login",
    "/nope",
    f"/environments/{name_of(0)}",
    f"/environments/{name_of(8)}",
    f"/builds/{READY.key}",
    f"/builds/{FAILED.key}",
    f"/builds/{BUILDING.key}",
    f"/builds/{READY.key}/files?package=pandas",
    f"/builds/{READY.key}/files",
    *(f"/instances/{name_of(n)}" for n in range(9)),
    f"/environments/{LONG}",
    f"/instances/{LONG}",
    f"/?team={LONG}",
    "/compare",
    f"/compare?old={name_of(1)}&new={name_of(0)}",
    f"/compare?old={LONG}&new={READY.key}",
    "/system",
)
WCAG = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
}


def add_long_names(served: Served) -> None:
    """Add a team, an environment and an instance, with a failed build and a wait."""
    asked, record = environment(8), instance(2)
    wanted = replace(
        asked.definition, name=LONG, team=LONG, rollout=(Wave((LONG, name_of(0)), 600.0),)
    )
    told = stored_event(
        time.time(), "BuildFailed", f"environment/{LONG}", LONG, "ResolutionConflict", "no"
    )
    write(
        served,
        Change(
            environments=(replace(asked, name=LONG, team=LONG, definition=wanted),),
            instances=(
                replace(
                    record,
                    name=LONG,
                    team=LONG,
                    wait=Wait(WaitOn.WAVE, f"an earlier wave: {LONG}"),
                    definition=replace(record.definition, name=LONG, team=LONG),
                ),
            ),
            builds=(replace(FAILED, key="f" * 16, environment=LONG, team=LONG),),
            events=(told,),
        ),
    )


# ------------------------------------------------------------------------------------------ access


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360], ids=["desk", "phone"])
def test_every_page_meets_wcag_aa_and_fits(
    scheme: Literal["light", "dark"], width: int, browser: Browser, served: Served, url: str
) -> None:
    """Axe finds nothing on any page, in light and dark; nothing is wider than the screen."""
    add_long_names(served)
    violations: dict[str, object] = {}
    with browser.new_context(
        base_url=url, color_scheme=scheme, viewport={"width": width, "height": 800}
    ) as context:
        page = context.new_page()
        sign_in(page)
        for path in EVERY:
            page.goto(path)
            for details in page.locator("details").all():
                details.evaluate("d => d.open = true")
            result = Axe().run(page, options={**WCAG, "resultTypes": ["violations"]})
            if result.violations_count:
                violations[path] = result.generate_report()
            over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            if over > 0:
                violations[f"{path} width"] = over
    assert violations == {}


def test_the_keyboard_alone_reaches_a_rollback(
    served: Served, page: Page, context: BrowserContext
) -> None:
    """Skip link, link to the instance, the action's summary, the button: Tab and Enter only."""
    del context
    sign_in(page)
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    reach(page, f"#instance-{name_of(0)}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/instances/{name_of(0)}")
    reach(page, "summary:has-text('Roll back')")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Roll back")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**asked=*")
    (request,) = served.store.requests()
    assert (request.verb, request.target) == (Verb.ROLLBACK, f"instance/{name_of(0)}")
    expect(page.get_by_text(f"request {request.id} waits")).to_be_visible()


def reach(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus, visibly."""
    wanted = page.locator(selector).first
    for _ in range(80):
        page.keyboard.press("Tab")
        if wanted.evaluate("e => e === document.activeElement"):
            assert wanted.evaluate("e => getComputedStyle(e).outlineStyle") != "none"
            return
    raise AssertionError(f"{selector} is not reached by Tab")


# ----------------------------------------------------------------------------------------- reading


def test_without_javascript_everything_is_there_to_read(browser: Browser, url: str) -> None:
    """Filters have a button; links, the log and forms of operators work."""
    with browser.new_context(base_url=url, java_script_enabled=False) as context:
        page = context.new_page()
        sign_in(page)
        page.get_by_role("combobox", name="State").select_option("Suspended")
        page.get_by_role("button", name="Show").click()
        expect(page.get_by_role("row")).to_have_count(2)
        page.get_by_role("link", name=name_of(5)).click()
        expect(page.get_by_text("nothing new is started", exact=False).first).to_be_visible()
        page.goto(f"/builds/{READY.key}")
        expect(page.locator("#log")).to_contain_text("resolved 3 packages")


def test_search_narrows_the_table_as_one_types(page: Page) -> None:
    """No click is needed, and the address can be shared."""
    page.goto("/")
    expect(page.get_by_role("row")).to_have_count(13)
    page.get_by_label("Search").press_sequentially("rolled", delay=20)
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.locator("#live")).to_contain_text("1 of 12")
    expect(page.get_by_label("Search")).to_be_focused()
    assert "q=rolled" in page.url
    page.reload()
    expect(page.get_by_role("row")).to_have_count(2)


def rows_of(page: Page, section: str) -> list[str]:
    """Return the rows of a table of packages as texts."""
    rows = page.get_by_role("region", name=section).locator("tbody tr")
    return [" ".join(row.split()) for row in rows.all_inner_texts()]


def test_an_instance_says_in_words_what_is_with_it(page: Page) -> None:
    """It shows why it went back, the quarantine, changes in packages, and each stage's time."""
    page.goto(f"/instances/{name_of(3)}")
    main = page.locator("main")
    expect(main).to_contain_text("it was rolled back to the previous build")
    expect(main).to_contain_text("No module named 'duckdb'")
    expect(main).to_contain_text("has been in quarantine here")
    expect(main.locator(".strip .failed")).to_contain_text("Probe")
    expect(main.locator(".strip .failed")).to_contain_text("12s")
    assert len(rows_of(page, "What the build that failed changes")) == 3
    page.goto(f"/instances/{name_of(0)}")
    assert rows_of(page, "Packages against the previous build") == [
        "duckdb – 1.4.1 new",
        "pandas 2.2.3 2.3.3 changed",
        "polars 1.30.0 – removed",
    ]
    commit = page.locator(".facts").get_by_role("link", name=REVISION[:8])
    expect(commit).to_have_attribute("href", f"https://git.example/envs/commit/{REVISION}")
    page.goto(f"/instances/{name_of(2)}")
    expect(main).to_contain_text("waits on: window: opens at 2026-01-02 02:00 Europe/Berlin")
    expect(main.locator(".strip .waiting")).to_contain_text("Drain")
    expect(main).to_contain_text(f"{build_id(2, 1)[:8]} → {build_id(2)[:8]}")
    assert len(rows_of(page, "What the next build changes")) == 3


def test_what_needs_attention_comes_first_with_the_next_step(page: Page) -> None:
    """One row for each problem, the worst first; a failed build is told once, with its log."""
    page.goto("/")
    problems = page.locator(".attention li")
    expect(problems).to_have_count(4)
    named = [" ".join(text.split()) for text in page.locator(".subject-line").all_inner_texts()]
    assert sorted(named) == sorted(
        [
            f"Degraded {name_of(4)} CrashLoop, for {named[0].partition('for ')[2]}",
            f"Rolled back {name_of(3)} NewImportErrors, for {named[1].partition('for ')[2]}",
            "Mistake Environment/typo UnknownKey",
            f"Build failed {name_of(8)} ResolutionConflict",
        ]
    )
    failed = problems.filter(has_text="Build failed")
    expect(failed).to_contain_text("ask for pandas<3")
    expect(failed.locator("code")).to_have_text(f"groundcrew retry environment/{name_of(8)}")
    failed.get_by_role("link", name="See the build and its log.").click()
    expect(page.locator("main")).to_contain_text("ask for pandas<3")
    assert page.title().startswith("(4) ")
    expect(page.locator("#favicon")).to_have_attribute("href", re.compile("icon-failed.svg"))


def test_two_clicks_lead_to_why_an_instance_is_not_on_the_newest_commit(page: Page) -> None:
    """From the fleet: the state's part of the bar, the instance; its page has the cause."""
    page.goto("/")
    page.get_by_role("link", name="3 Failed").click()
    expect(page.locator(".fleet tbody tr")).to_have_count(3)
    page.locator(".fleet").get_by_role("link", name=name_of(8)).click()
    expect(page.locator("main")).to_contain_text("ask for pandas<3")


def test_a_build_that_is_not_ready_is_told_where_it_is_waited_for(page: Page) -> None:
    """In the fleet it is among the first failures; the instance has the resolver's message."""
    page.goto("/")
    row = page.locator(".fleet tbody tr").filter(has_text=name_of(8))
    expect(row).to_contain_text("Build failed")
    expect(row).to_contain_text("pandas 3.0 needs numpy>=2.4")
    expect(page.locator(".fleet tbody tr").nth(1)).to_contain_text(name_of(8))
    building = page.locator(".fleet tbody tr").filter(has_text=name_of(7))
    expect(building).to_contain_text("Building")
    row.get_by_role("link", name=name_of(8)).click()
    main = page.locator("main")
    expect(main).to_contain_text("The build for the newest revision failed. Nothing was changed")
    expect(main).to_contain_text("ask for pandas<3")
    expect(main.get_by_role("link", name=FAILED.key[:8])).to_be_visible()
    page.goto(f"/instances/{name_of(7)}")
    expect(main).to_contain_text("is being made")
    page.goto(f"/builds/{FAILED.key}")
    expect(main).to_contain_text("It ended before they were known.")


def test_only_what_runs_looks_as_if_it_ran(page: Page) -> None:
    """A stage that ended does not look like a running one."""
    page.goto(f"/builds/{READY.key}")
    expect(page.locator(".strip .done")).to_have_count(3)
    page.goto(f"/builds/{BUILDING.key}")
    expect(page.locator(".strip .running")).to_contain_text("Build")
    expect(page.locator(".strip .running")).to_have_count(1)


def test_two_instances_are_compared(page: Page) -> None:
    """Packages and everything else; an unknown name is told, and a build leads to its own."""
    page.goto("/compare")
    page.get_by_label("Before").fill(name_of(1))
    page.get_by_label("After").fill(name_of(0))
    page.get_by_role("button", name="Compare").click()
    assert "pandas 2.2.3 2.3.3 changed" in rows_of(page, "Packages")
    expect(page.get_by_role("row").filter(has_text="Jars")).to_contain_text("postgresql-42.7.4.jar")
    page.goto(f"/builds/{READY.key}")
    page.get_by_role("link", name="compare everything").click()
    assert "polars 1.30.0 – removed" in rows_of(page, "Packages")
    page.goto(f"/compare?old=nobody&new={name_of(0)}")
    expect(page.locator("main")).to_contain_text("There is no build and no instance nobody.")


def test_the_system_page_says_whether_groundcrew_is_well(served: Served, page: Page) -> None:
    """Without a leader nothing happens, and the page says so; with one it names it."""
    page.goto("/system")
    expect(page.locator("main")).to_contain_text("no daemon leads")
    expect(page.locator("main")).to_contain_text("build of building-0007")
    lease = served.store.acquire("host-7:4711", 60.0)
    assert lease is not None
    page.reload()
    expect(page.locator(".facts")).to_contain_text("host-7:4711")
    expect(page.locator("main")).not_to_contain_text("no daemon leads")


def test_a_name_that_was_not_looked_at_or_does_not_fit_is_told_as_that(page: Page) -> None:
    """An instance that was never inspected shows no build; a filter without results says so."""
    page.goto(f"/instances/{name_of(6)}")
    main = page.locator("main")
    expect(main).to_contain_text("It has not been checked yet.")
    expect(main).not_to_contain_text("bare base")
    page.goto("/")
    row = page.locator(".fleet tbody tr").filter(has_text=name_of(6))
    expect(row).to_contain_text("not known yet")
    page.goto("/events?kind=Nope")
    expect(main).to_contain_text("No event matches.")
    assert "BuildReady" in page.locator("#kinds option").evaluate_all(
        "all => all.map(o => o.value)"
    )
    page.get_by_role("link", name="Show all").click()
    expect(page.locator(".history").first).to_be_visible()


def test_a_build_id_stays_in_one_piece(served: Served, page: Page) -> None:
    """The table of environments never breaks it, on a desktop or a phone, whatever else is long."""
    add_long_names(served)
    page.goto("/environments")
    for width in (1280, 800, 390):
        page.set_viewport_size({"width": width, "height": 800})
        lines = page.locator("a.mono").evaluate_all(
            "all => all.map(a => a.getClientRects().length)"
        )
        assert set(lines) == {1}


def test_a_refusal_knows_who_is_signed_in(page: Page) -> None:
    """The name and the sign-out are there, as on any page."""
    sign_in(page, READER)
    page.goto("/instances/none")
    expect(page.locator("header")).to_contain_text("Team reader")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(page.get_by_role("link", name="Sign in")).to_have_count(0)


def test_a_build_shows_its_budget_and_why_it_failed(page: Page) -> None:
    """Import budget, jars and documents; the resolver's message with the place."""
    page.goto(f"/builds/{READY.key}")
    expect(page.locator(".facts")).to_contain_text(
        "1.9s for all 812 modules, 1904 files in 2310 opens"
    )
    expect(page.locator(".facts")).to_contain_text("postgresql-42.7.4.jar")
    expect(page.get_by_role("link", name="SBOM")).to_be_visible()
    page.goto(f"/builds/{FAILED.key}")
    expect(page.locator("main")).to_contain_text("ask for pandas<3")
    expect(page.locator("main")).to_contain_text(f"{name_of(8)}.yaml:6:7")


def test_markup_in_what_teams_write_is_text(served: Served, page: Page) -> None:
    """Commit messages, package names, errors and logs are shown literally, and never run."""
    ran: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        ran.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    records = served.store.load()
    environment = records.environments[name_of(0)]
    build = records.builds[READY.key]
    write(
        served,
        Change(
            environments=(
                replace(environment, commit=replace(environment.commit, subject=MARKUP)),
            ),
            instances=(
                replace(records.instances[name_of(3)], problem=Problem(Reason(MARKUP), MARKUP)),
            ),
            builds=(replace(build, packages=((MARKUP, "1<2"), *build.packages)),),
            events=(
                stored_event(1.0, "BuildReady", f"environment/{name_of(0)}", "t", MARKUP, MARKUP),
                stored_event(2.0, MARKUP, f"instance/{MARKUP}", "t", "r", MARKUP, MARKUP),
            ),
        ),
    )
    (served.logs / f"{READY.key}.log").write_text(MARKUP)
    time.sleep(1.1)
    for path in (
        "/",
        "/environments",
        "/events",
        f"/environments/{name_of(0)}",
        f"/builds/{READY.key}",
        f"/instances/{name_of(0)}",
        f"/instances/{name_of(3)}",
    ):
        page.goto(path)
        expect(page.locator("main")).to_contain_text('<script>alert("x")</script>')
        assert page.locator("main script, main b").count() == 0, path
    page.goto(f"/?q={quote(MARKUP)}")
    assert page.get_by_label("Search").input_value() == MARKUP
    assert ran == []


# ------------------------------------------------------------------------------------- screenshots


@pytest.mark.parametrize(
    ("name", "path", "scheme", "width"),
    [
        ("fleet", "/", "light", 1280),
        ("fleet-dark-phone", "/", "dark", 390),
        ("instance", f"/instances/{name_of(3)}", "light", 1280),
        ("build", f"/builds/{READY.key}", "dark", 1280),
    ],
)
def test_the_pictures_of_the_manual_can_be_taken(
    name: str,
    path: str,
    scheme: Literal["light", "dark"],
    width: int,
    browser: Browser,
    url: str,
    tmp_path: Path,
    pytestconfig: pytest.Config,
) -> None:
    """Each page is drawn; with GROUNDCREW_PICTURES set, the pictures go to docs/img."""
    folder = Path(pytestconfig.rootpath, "docs", "img")
    with browser.new_context(
        base_url=url, color_scheme=scheme, viewport={"width": width, "height": 800}
    ) as context:
        page = context.new_page()
        sign_in(page)
        page.goto(path)
        target = folder if os.environ.get("GROUNDCREW_PICTURES") else tmp_path
        taken = page.screenshot(path=target / f"{name}.png")
    assert taken.startswith(b"\x89PNG")
    assert (folder / f"{name}.png").is_file()
