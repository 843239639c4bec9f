"""Slack Block Kit payloads for one fact or for a digest of many, within Slack's limits.

Text from a repo or a log is escaped, so that no commit message or package name can add a mention, a
link or markup. slack-sdk's own models check the limits when a payload is created.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from packaging.version import InvalidVersion, Version
from slack_sdk.models.blocks import (
    Block,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)

from metrics.facts import Fact, cut
from metrics.notices import NOTICES, ROLLBACK, Severity
from reconciler.core.events import EventKind
from reconciler.core.formatting import span
from reconciler.core.phases import Trigger

HEADER = 150  # Slack's limits, in characters
SECTION = 3000
FIELD = 2000
CONTEXT = 2000
BLOCKS = 50  # of one message
TEXT = 3000  # of the fallback text; Slack's own limit is higher
NAMED = 20  # packages named in one list

PLAIN = frozenset({EventKind.ACTIVATION_STARTED, EventKind.ACTIVATION_ACTIVE})
"""Kinds of facts whose fields say everything."""

Payload = dict[str, Any]


def message(fact: Fact) -> Payload:
    """Return the message for one fact."""
    blocks: list[Block] = [_header(f"{_emoji(fact)} {fact.title}")]
    fields = _fields(fact)
    if fields:
        blocks.append(SectionBlock(fields=fields))
    if fact.message and fact.kind not in PLAIN:
        blocks.append(_section(_reason(fact)))
    if fact.log:
        blocks.append(_section(_log(fact.log)))
    blocks += [
        _section(f"*{word}* {_names(packages, SECTION - len(word) - 3)}")
        for word, packages in _changes(fact, "To be " if fact.failed else "")
    ]
    if fact.grown:
        blocks.append(_section(f"*Imports cost more* {_names(fact.grown, SECTION - 30)}"))
    if fact.advice:
        blocks.append(_section(escape(fact.advice)))
    context = _context(fact)
    if context:
        blocks.append(ContextBlock(elements=[MarkdownTextObject(text=context)]))
    return _payload(_headline(fact), blocks)


def digest(facts: Sequence[Fact]) -> Payload:
    """Return one message for many facts: each failure first, then the rest by kind and commit."""
    counts = Counter(f.words for f in facts)
    summary = f"{len(facts)} changes: {', '.join(f'{n} {w}' for w, n in counts.most_common())}"
    worst = [f for f in facts if f.failed]
    worst.sort(key=lambda f: (f.severity != Severity.CRITICAL, f.object))
    blocks: list[Block] = [_header(summary)]
    room = BLOCKS - 2  # the header, and the line that says what was left out
    sections = [_failure(f) for f in worst[: room // 2]]
    advice = sorted({NOTICES[f.kind].title + ": " + _general_advice(f) for f in worst if f.advice})
    if advice:
        sections.append(escape("\n".join(advice)))
    sections += _groups([f for f in facts if not f.failed])
    left_out = max(0, len(worst) - room // 2) + max(0, len(sections) - room)
    blocks += [_section(text) for text in sections[:room]]
    tail = f"{left_out} more are not shown; " if left_out else ""
    blocks.append(
        ContextBlock(elements=[MarkdownTextObject(text=f"{tail}`groundcrew status` shows all")])
    )
    return _payload(summary, blocks)


def of_facts(facts: Sequence[Fact]) -> Payload:
    """Return one message: the fact's own, or a digest if there are several."""
    return message(facts[0]) if len(facts) == 1 else digest(facts)


def _payload(text: str, blocks: Sequence[Block]) -> Payload:
    return {"text": fit(text, TEXT), "blocks": [block.to_dict() for block in blocks]}


# ---------------------------------------------------------------------------------- one fact


def _headline(fact: Fact) -> str:
    if fact.kind in PLAIN:
        counts = ", ".join(f"{len(packages)} {word.lower()}" for word, packages in _changes(fact))
        return f"{fact.title} ({counts})" if counts else fact.title
    first = fact.message.splitlines()[0] if fact.message else ""
    return f"{fact.title}: {first}" if first else fact.title


def _emoji(fact: Fact) -> str:
    is_active = fact.kind is EventKind.ACTIVATION_ACTIVE
    taken_back = is_active and fact.trigger is Trigger.OPERATOR
    return ROLLBACK if taken_back else NOTICES[fact.kind].emoji


def _changes(fact: Fact, lead: str = "") -> list[tuple[str, list[str]]]:
    """Return the added, removed and changed packages by heading, without empty groups."""
    groups: dict[str, list[str]] = {"added": list(fact.added), "removed": list(fact.removed)}
    for change in fact.changed:
        groups.setdefault(_direction(change), []).append(change)
    return [((lead + word).capitalize(), names) for word, names in groups.items() if names]


def _direction(change: str) -> str:
    """Return the direction of "name old → new"; "changed" if the versions cannot be compared."""
    old, _, new = change.partition(" → ")
    try:
        before, after = Version(old.rpartition(" ")[2]), Version(new)
    except InvalidVersion:
        return "changed"
    return "upgraded" if after > before else "downgraded" if after < before else "changed"


def _header(text: str) -> HeaderBlock:
    return HeaderBlock(text=PlainTextObject(text=cut(text, HEADER), emoji=True))


def _section(text: str) -> SectionBlock:
    """Return a section of markup. The text must be escaped and within the limit, or it is cut."""
    return SectionBlock(text=MarkdownTextObject(text=cut(text, SECTION)))


def _fields(fact: Fact) -> list[MarkdownTextObject]:
    """Return up to four fields: team, commit, duration and builds."""
    fields = []
    if fact.team:
        fields.append(("Team", fit(fact.team, 200)))
    if fact.revision:
        by = f" by {fit(fact.author, 300)}" if fact.author else ""
        fields.append(("Commit", f"{_commit(fact)}{by}"))
    if fact.seconds is not None:
        longest = sorted(fact.phases.items(), key=lambda pair: -pair[1])[:3]
        of_it = ", ".join(f"{fit(name, 40)} {span(s)}" for name, s in longest if s >= 0.1)
        fields.append(("Took", f"{span(fact.seconds)}{f' ({of_it})' if of_it else ''}"))
    if fact.object.startswith("instance/") and (fact.build or fact.previous_build):
        old, new = fact.previous_build or "base", fact.build or "base"
        fields.append(("Build", f"`{fit(old, 40)}` → `{fit(new, 40)}`"))
    return [MarkdownTextObject(text=cut(f"*{k}*\n{v}", FIELD)) for k, v in fields]


def _commit(fact: Fact) -> str:
    short = fact.revision[:10]
    return _link(fact.commit_url, short) if fact.commit_url else f"`{escape(short)}`"


def _link(url: str, words: str) -> str:
    safe = url.replace("|", "%7C").replace("<", "%3C").replace(">", "%3E").replace("&", "&amp;")
    return f"<{safe}|{escape(words)}>"


def _reason(fact: Fact, limit: int = SECTION) -> str:
    if not fact.failed:
        return fit(fact.message, limit)
    location = (
        f"`{fit(fact.place, 300)}`: " if fact.place and fact.place not in fact.message else ""
    )
    lead = f"*{fit(fact.reason, 100)}* {location}"
    return lead + fit(fact.message, limit - len(lead))


def _log(lines: Sequence[str]) -> str:
    """Return as many of the last lines as fit, in a code block that none of them can close."""
    room = SECTION - len("```\n\n```")
    kept: list[str] = []
    for line in reversed(lines):
        shown = fit(line.replace("`", "'"), room)
        if len(shown) + 1 > room:
            break
        kept.insert(0, shown)
        room -= len(shown) + 1
    return "```\n" + "\n".join(kept) + "\n```"


def _names(names: Sequence[str], limit: int) -> str:
    """Return the first names, and how many more there are."""
    room = limit - len(", and 1000000 more")
    kept: list[str] = []
    for name in names[:NAMED]:
        shown = fit(name, 200)
        if len(shown) + 2 > room:
            break
        kept.append(shown)
        room -= len(shown) + 2
    more = len(names) - len(kept)
    return ", ".join(kept) + (f", and {more} more" if more else "")


def _context(fact: Fact) -> str:
    """Return the commit's subject and a link; the same for all messages of one activation."""
    parts = [fit(fact.subject, 300)] if fact.subject else []
    if fact.environment:
        parts.append(f"environment {fit(fact.environment, 100)}")
    if fact.url:
        parts.append(_link(fact.url, "Groundcrew"))
    return cut(" · ".join(parts), CONTEXT)


# ----------------------------------------------------------------------------------- a digest


def _failure(fact: Fact) -> str:
    team = f" (team {fit(fact.team, 100)})" if fact.team else ""
    by = f" by {fit(fact.author, 100)}" if fact.author else ""
    commit = f", commit {_commit(fact)}{by}" if fact.revision else ""
    title = _link(fact.url, cut(fact.title, 300)) if fact.url else fit(fact.title, 300)
    return f"{_emoji(fact)} *{title}*{team}{commit}\n{_reason(fact, 1000)}"


def _general_advice(fact: Fact) -> str:
    return NOTICES[fact.kind].advice.format(name="NAME", object="OBJECT")


def _groups(facts: Sequence[Fact]) -> list[str]:
    """Return a text for each kind, commit and package change: affected objects and changes."""
    groups: dict[tuple[object, ...], list[Fact]] = {}
    for fact in facts:
        key = (fact.kind, fact.words, fact.revision, fact.added, fact.removed, fact.changed)
        groups.setdefault(key, []).append(fact)
    return [_group(group) for group in sorted(groups.values(), key=lambda g: -len(g))]


def _group(facts: Sequence[Fact]) -> str:
    first = facts[0]
    by = f" by {fit(first.author, 100)}" if first.author else ""
    subject = f": {fit(first.subject, 200)}" if first.subject else ""
    lines = [f"{_emoji(first)} *{len(facts)} {first.words}*"]
    if first.revision:
        lines[0] += f", commit {_commit(first)}{by}{subject}"
    lines.append(_names(sorted({f.name for f in facts}), 1000))
    slowest = max((f.seconds for f in facts if f.seconds is not None), default=None)
    if slowest is not None:
        lines.append(f"took up to {span(slowest)}")
    lines += [f"{word}: {_names(packages, 350)}" for word, packages in _changes(first)]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------- escaping


def escape(text: str) -> str:
    """Return the text escaped for Slack, so that no commit message can contain markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fit(text: str, limit: int) -> str:
    """Return `text` escaped, in at most `limit` characters, without cutting an escape in two."""
    whole = escape(text)
    if len(whole) <= limit:
        return whole
    room, kept = limit - 1, []
    for character in text:
        shown = escape(character)
        if len(shown) > room:
            break
        kept.append(shown)
        room -= len(shown)
    return "".join(kept) + "…"
