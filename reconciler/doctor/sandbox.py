"""Check of the sandbox in which builds for local instances run."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.builder.executor.bubblewrap import unconfined_because
from reconciler.core.reasons import Reason
from reconciler.doctor.findings import Check, Finding, Level, good
from reconciler.settings import BuilderSettings

ABOUT = "local builds"


def look(settings: BuilderSettings) -> Iterator[Finding]:
    """Check that build commands are confined on this machine, as this user."""
    reason = unconfined_because(settings)
    if not reason:
        yield good(Check.SANDBOX, ABOUT, "their commands are confined")
    elif settings.sandbox == "off":
        yield Finding(
            Check.SANDBOX,
            ABOUT,
            Level.WARNING,
            Reason.SANDBOX_OFF,
            "what teams wrote runs with all rights of the daemon's user: builder.sandbox is `off`",
            "set builder.sandbox (GROUNDCREW_BUILDER__SANDBOX) to `require`",
        )
    elif settings.sandbox == "require":
        yield Finding(
            Check.SANDBOX,
            ABOUT,
            Level.WRONG,
            Reason.SANDBOX_MISSING,
            f"the daemon does not start, as builder.sandbox is `require`: {reason}",
            "see the message; `apt-get install bubblewrap libseccomp2 util-linux` brings the parts",
        )
    else:
        yield Finding(
            Check.SANDBOX,
            ABOUT,
            Level.WRONG,
            Reason.SANDBOX_MISSING,
            f"what teams wrote runs with all rights of the daemon's user: {reason}",
            "see the message; `apt-get install bubblewrap libseccomp2 util-linux` brings the "
            "parts, and builder.sandbox = `require` refuses to run without them",
        )
