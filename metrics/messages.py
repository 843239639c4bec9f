"""What Slack is told: one message per fact, in words a team understands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.core.model import Event

HEADER = 150  # Slack's limits, in characters
SECTION = 3000

TOLD: Mapping[str, tuple[str, str]] = {
    "ActivationStarted": (":arrows_counterclockwise:", "activation started"),
    "ActivationActive": (":white_check_mark:", "active"),
    "BuildFailed": (":x:", "build failed"),
    "RolledBack": (":leftwards_arrow_with_hook:", "rolled back"),
    "Degraded": (":rotating_light:", "DEGRADED"),
    "ObjectStalled": (":no_entry:", "stalled"),
    "SourceFailed": (":warning:", "the environments repo cannot be read"),
    "PruneHeld": (":warning:", "a revision is held"),
}

ADVICE: Mapping[str, str] = {
    "BuildFailed": "Nothing live was touched. Mend it and commit; "
    "`groundcrew logs {name}` has all.",
    "RolledBack": "The instance is back on what it had. The build is not tried again there until "
    "the definition changes or someone runs `groundcrew retry {object}`.",
    "Degraded": "Going back failed too. Look at the instance now: `groundcrew status`.",
    "ObjectStalled": "This object is left as it is until the file is mended.",
    "PruneHeld": "Run `groundcrew confirm-prune` if this is meant.",
}


def fact(event: Event) -> str:
    """What the message tells, so that it is told once."""
    return f"event-{event.id}"


def message(event: Event, public_url: str = "") -> dict[str, Any] | None:
    """The payload of an incoming webhook; None for an event that nobody needs to hear of."""
    told = TOLD.get(event.kind)
    if told is None:
        return None
    emoji, words = told
    name = event.object.partition("/")[2] or "groundcrew"
    title = f"{name}: {words}"
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": cut(f"{emoji} {title}", HEADER), "emoji": True},
        }
    ]
    body = "\n".join(_lines(event))
    if body:
        blocks.append(_section(body))
    advice = ADVICE.get(event.kind, "")
    if advice:
        blocks.append(_section(advice.format(name=name, object=event.object)))
    context = _context(event, public_url)
    if context:
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": context}]})
    text = f"{title}: {event.message.splitlines()[0]}" if event.message else title
    return {"text": escape(cut(text, SECTION)), "blocks": blocks}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": cut(text, SECTION)}}


def _lines(event: Event) -> list[str]:
    lines: list[str] = []
    place = str(event.data.get("place", ""))
    if event.kind in ("BuildFailed", "RolledBack", "Degraded"):
        where = f"`{escape(place)}`: " if place else ""
        lines.append(f"*{escape(event.reason)}* {where}{escape(cut(event.message, 2000))}")
    elif event.message:
        lines.append(escape(cut(event.message, 2000)))
    for key, sign in (
        ("packages_added", "+"),
        ("packages_removed", "-"),
        ("packages_changed", "~"),
    ):
        found = event.data.get(key)
        if isinstance(found, list) and found:
            shown = ", ".join(escape(str(p)) for p in found[:15])
            more = f" and {len(found) - 15} more" if len(found) > 15 else ""
            lines.append(f"{sign} {shown}{more}")
    seconds = event.data.get("seconds")
    if isinstance(seconds, float):
        lines.append(f"took {seconds:.1f} s")
    return lines


def _context(event: Event, public_url: str) -> str:
    parts = [f"team {escape(event.team)}"] if event.team else []
    if event.revision:
        author = escape(str(event.data.get("author", "")))
        subject = escape(cut(str(event.data.get("subject", "")), 200))
        by = f" by {author}" if author else ""
        parts.append(f"commit `{event.revision[:10]}`{by}: {subject}")
    if public_url:
        parts.append(f"<{public_url.rstrip('/')}/|Groundcrew>")
    return cut(" · ".join(parts), 2000)


def escape(text: str) -> str:
    """As Slack wants it: no markup out of anybody's commit message."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def cut(text: str, limit: int) -> str:
    """At most `limit` characters, and it shows when there were more."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
