"""Faults of indexes: what kept them from answering while something was resolved or built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.builder.index.proxy import Indexes
from reconciler.builder.resolve.uv_errors import place_of, untrusted
from reconciler.core.definitions import Place, Recipe
from reconciler.core.errors import GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason


def fault_of(known: Indexes, recipe: Recipe, where: Place | None) -> GroundcrewError | None:
    """Return what kept an index from being used, at `where` unless a requirement is to blame."""
    if known.distrusted:
        return untrusted(min(known.distrusted), where)
    if known.unreadable:
        return Retryable(
            Reason.INDEX_UNREADABLE, f"{min(known.unreadable)}; have the index repaired", where
        )
    if known.astray:
        return Stalled(Reason.ADDRESS_REFUSED, min(known.astray), where)
    if known.refused:
        name, index = min(known.refused.items())
        return Retryable(
            Reason.INDEX_DENIED,
            f"index {index} refuses access (asked for {name}); renew the secret, or name one with "
            f"`credentials` if it has none",
            place_of(name, recipe),
        )
    if known.unreachable:
        index, why = min(known.unreachable.items())
        return Retryable(
            Reason.INDEX_UNREACHABLE,
            f"index {index} does not answer: {why}; it is tried again",
            where,
            known.waits.get(index),
        )
    return None


@contextmanager
def blamed(known: Indexes, recipe: Recipe) -> Iterator[None]:
    """Blame an index for a package that does not build because of it, and not the package."""
    try:
        yield
    except Stalled as error:
        if error.reason is not Reason.PACKAGE_BUILD_FAILED:
            raise
        fault = fault_of(known, recipe, error.place)
        if fault is not None:
            raise fault from error
        internal = sorted(name for name in known.missing if known.path_of(name) is not None)
        if internal:
            names = ", ".join(f"{name} ({known.path_of(name)})" for name in internal)
            raise Stalled(
                Reason.NOT_LISTED,
                f"a build needs what is in this repo, and no index is asked for it: {names}. "
                f"Describe the index that has it in `indexes`",
                error.place,
            ) from error
        raise
