"""Preview as a comment on a pull request, in Markdown that GitHub and GitLab show alike.

Texts come from the pull request: nothing in them becomes markup, a link or a mention. The result
stays below GitHub's limit for one comment.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from reconciler.cli.preview.comparison import Action, InstanceChange, Preview
from reconciler.core.packages import Difference

MARK = "<!-- groundcrew plan -->"  # with which a CI finds its earlier comment
LIMIT = 60_000  # characters; GitHub allows 65,536
ROWS = 100  # per table
WORDS = 1500  # per problem


def markdown(preview: Preview) -> str:
    """Return the comment."""
    parts = [MARK, f"## Groundcrew: {_headline(preview)}", *_table(preview.changes)]
    parts += _problems(preview) + _mistakes(preview) + _lost(preview)
    parts += _advisories(preview) + _packages(preview.changes) + _unknown(preview)
    parts.append(f"Compared with {code(preview.base[:10])}; nothing was built or changed.")
    return _bounded(parts)


def _bounded(parts: Sequence[str]) -> str:
    kept, room = [], LIMIT - 200
    for part in parts:
        if len(part) + 2 > room:
            kept.append("*The rest is too long for a comment: run `groundcrew plan` for it.*")
            break
        kept.append(part)
        room -= len(part) + 2
    return "\n\n".join(kept) + "\n"


def _headline(preview: Preview) -> str:
    touched = sum(c.action not in (Action.SETTINGS, Action.STALLED) for c in preview.changes)
    summary = f"{touched} instance{'' if touched == 1 else 's'} would change"
    if not preview.changes and not preview.findings:
        summary = "nothing would change"
    wrong = len(preview.findings) + sum(c.problem is not None for c in preview.changes)
    problems = f"{wrong} problem{'' if wrong == 1 else 's'}"
    return f"{summary}, {problems}" if wrong else summary


def _table(changes: Sequence[InstanceChange]) -> list[str]:
    if not changes:
        return []
    rows = [
        "| Instance | Team | Environment | What | Packages | Waits on |",
        "|---|---|---|---|---|---|",
    ]
    for change in changes[:ROWS]:
        packages = "conflict" if change.problem else "not known" if change.unknown else ""
        if change.packages is not None:
            packages = change.packages.short
        cells = [
            code(change.instance),
            code(change.team),
            code(change.environment),
            text(change.action),
            packages,
            text("; ".join(change.waits_on)),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    if len(changes) > ROWS:
        rows.append(f"| and {len(changes) - ROWS} more | | | | | |")
    return ["\n".join(rows)]


def _problems(preview: Preview) -> list[str]:
    """Return each problem once, with the instances that have it."""
    affected: dict[tuple[str, str, str], list[str]] = {}
    for change in preview.changes:
        problem = change.problem
        if problem is not None:
            key = (str(problem.place or ""), problem.reason, problem.message)
            affected.setdefault(key, []).append(change.instance)
    if not affected:
        return []
    parts = ["### Conflicts"]
    for (location, reason, message), instances in list(affected.items())[:ROWS]:
        on = ", ".join(code(name) for name in instances[:20])
        parts.append(
            f"**{text(reason)}** at {code(location or 'unknown')}, on {on}\n\n{quote(message)}"
        )
    return parts


def _mistakes(preview: Preview) -> list[str]:
    parts = []
    if preview.findings:
        lines = [
            f"- {code(str(f.place))} **{text(f.reason)}** {text(f.object)}: {text(f.message)}"
            for f in preview.findings[:ROWS]
        ]
        parts += ["### Mistakes in the definitions", "\n".join(lines)]
    if preview.mended:
        names = ", ".join(code(f.object) for f in preview.mended[:ROWS])
        parts.append(f"Mended: {names}")
    return parts


def _lost(preview: Preview) -> list[str]:
    if not preview.lost:
        return []
    names = ", ".join(code(name) for name in preview.lost[:20])
    return [
        "### Held until someone confirms",
        f"This removes {len(preview.lost)} objects ({names}). The daemon changes nothing until "
        f"`groundcrew confirm-prune`.",
    ]


def _advisories(preview: Preview) -> list[str]:
    if preview.advisories:
        return [f"Advisories were not looked up: {text(preview.advisories)}."]
    advisories = {
        (a.id, a.package, a.version): a for change in preview.changes for a in change.advisories
    }
    if not advisories:
        return []
    rows = ["| Advisory | Package | Version | |", "|---|---|---|---|"]
    for advisory in sorted(advisories.values(), key=lambda a: (not a.new, a.package, a.id))[:ROWS]:
        link = f"[{text(advisory.id)}]({html.escape(advisory.url).replace(')', '%29')})"
        news = "**new with this change**" if advisory.new else "stays"
        rows.append(f"| {link} | {code(advisory.package)} | {code(advisory.version)} | {news} |")
    return ["### Advisories", "\n".join(rows)]


def _packages(changes: Sequence[InstanceChange]) -> list[str]:
    """Return each difference once, with the instances that it is for."""
    groups: dict[tuple[str, str], tuple[InstanceChange, list[str]]] = {}
    for change in changes:
        asked = change.packages is not None or change.requirements
        if asked and change.problem is None:
            key = (change.environment, change.runtime)
            groups.setdefault(key, (change, []))[1].append(change.instance)
    parts = []
    for first, instances in groups.values():
        shown = ", ".join(code(name) for name in instances[:20])
        title = f"### Packages of {code(first.environment)} on {shown}"
        on = f"Resolved for {code(first.runtime)}.\n\n" if first.runtime else ""
        if first.packages is None:
            body = quote("\n".join(first.requirements))
        else:
            body = _differences(first.packages)
        if first.in_base:
            named = ", ".join(code(f"{name} {v}") for name, v in list(first.in_base.items())[:ROWS])
            body += f"\n\nAlready in the base: {named}"
        parts.append(f"{title}\n\n{on}{body}")
    return parts


def _differences(found: Difference) -> str:
    rows = [(name, "", version) for name, version in found.added.items()]
    rows += [(name, version, "") for name, version in found.removed.items()]
    rows += [(name, before, after) for name, (before, after) in found.changed.items()]
    if not rows:
        return "The same packages in the same versions."
    lines = ["| Package | Before | After |", "|---|---|---|"]
    for name, before, after in sorted(rows)[:ROWS]:
        lines.append(f"| {code(name)} | {code(before)} | {code(after)} |")
    if len(rows) > ROWS:
        lines.append(f"| and {len(rows) - ROWS} more | | |")
    return "\n".join(lines)


def _unknown(preview: Preview) -> list[str]:
    affected: dict[str, list[str]] = {}
    for change in preview.changes:
        if change.unknown:
            affected.setdefault(change.unknown, []).append(change.instance)
    if not affected:
        return []
    lines = [
        f"- {', '.join(code(n) for n in names[:20])}: {text(why)}"
        for why, names in affected.items()
    ]
    return ["### Not known", "\n".join(lines)]


def code(words: str) -> str:
    """Return words as code, or "" for none."""
    plain = "".join(c for c in words if c.isprintable()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`" if plain else ""


def text(words: str) -> str:
    """Return words on one line, with all special characters of Markdown escaped."""
    line = " ".join("".join(c for c in words if c.isprintable() or c.isspace()).split())
    escaped = html.escape(line[:WORDS], quote=False)
    for character in "\\`*_{}[]()#!|~":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped.replace("@", "&#64;").replace("://", ":&#47;&#47;")


def quote(words: str) -> str:
    """Return words unchanged, in a separate block."""
    kept = "".join(c for c in words[:WORDS] if c.isprintable() or c == "\n")
    lines = [line for line in kept.split("\n") if line.strip()]
    return "<pre>" + html.escape("\n".join(lines), quote=False).replace("@", "&#64;") + "</pre>"
