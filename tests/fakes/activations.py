"""Activations with other components than those of the instance's definition."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.model import Activation


def loading(
    activation: Activation, target: tuple[str, ...], origin: tuple[str, ...] | None = None
) -> Activation:
    """Return the activation whose new build these components load; `origin`: the old one."""
    old = activation.origin if origin is None else replace(activation.origin, load_into=origin)
    return replace(activation, origin=old, target=replace(activation.target, load_into=target))
