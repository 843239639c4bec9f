"""Dashboard "Groundcrew: one instance": its build, what it waits for, and its history."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.panels import (
    JOB,
    activations,
    bars,
    choice,
    dashboard,
    graph,
    number,
    rows,
    timeline,
    word,
)

MINE = f'{JOB}, instance="$instance"'
ENVIRONMENT = f'{JOB}, environment="$environment"'
INFO = f"groundcrew_instance_info{{{MINE}}}"


def instance() -> Dashboard:
    """Return the dashboard of one instance and its environment."""
    board = dashboard(
        "groundcrew-instance", "Groundcrew: one instance", "An instance and its environment."
    )
    board = board.with_variable(
        choice("instance", "Instance", f"label_values(groundcrew_instance_info{{{JOB}}}, instance)")
    ).with_variable(
        choice("environment", "Environment", f"label_values({INFO}, environment)"),
    )
    return _history(_now(activations(board, MINE)))


def _now(found: Dashboard) -> Dashboard:
    found = found.with_row(Row("Now"))
    for title, description, label in (
        ("Team", "Who owns it.", "team"),
        ("Sync", "Does it have what the newest revision asks for.", "sync_status"),
        ("Health", "How it is.", "health_status"),
        ("Build now", "The build that is active; empty on the bare base.", "build"),
    ):
        found = found.with_panel(word(title, description, INFO, label))
    found = found.with_panel(
        word("Phase now", "Where it is.", f"groundcrew_instance_phase{{{MINE}}}", "phase")
    )
    found = found.with_panel(
        number(
            "Quarantined builds",
            "Not tried again here.",
            f"sum(groundcrew_quarantined_builds{{{MINE}}})",
            bad=1,
        )
    )
    return found.with_panel(
        rows(
            "Problems",
            "Of the instance and of its environment. `groundcrew status` has the words.",
            f"groundcrew_object_problem{{{JOB}, "
            'object=~"instance/$instance|environment/$environment"}',
            ["object", "team", "source", "reason"],
        )
    )


def _history(found: Dashboard) -> Dashboard:
    found = found.with_row(Row("Over time"))
    found = found.with_panel(
        timeline(
            "Phase",
            "Filled while the instance was in it.",
            {"{{phase}}": f"max by (phase) (groundcrew_instance_phase{{{MINE}}})"},
        )
    )
    found = found.with_panel(
        timeline(
            "Waits on",
            "Filled while a wanted activation waited on it.",
            {"{{on}}": f"max by (on) (groundcrew_instance_waiting{{{MINE}}})"},
            width=12,
        )
    )
    found = found.with_panel(
        timeline(
            "Build",
            "Filled while it was active.",
            {"{{build}}": f"max by (build) ({INFO})"},
            width=12,
        )
    )
    found = found.with_panel(
        graph(
            "Activations that ended",
            "Since the records begin.",
            {"{{result}}": f"sum by (result) (groundcrew_activation_total{{{MINE}}})"},
        )
    )
    found = found.with_panel(
        bars(
            "Rollbacks by what set them off",
            "Since the records begin.",
            {"{{trigger}}": f"sum by (trigger) (groundcrew_rollback_total{{{MINE}}}) or vector(0)"},
        )
    )
    found = found.with_panel(
        graph(
            "Imports of the environment's newest build",
            "What a build costs each process when it starts.",
            f"max(groundcrew_import_seconds{{{ENVIRONMENT}}})",
            unit="s",
        )
    )
    return found.with_panel(
        graph(
            "Files that these imports need",
            "Steadier than the time; what a share is asked for by the first process on a machine.",
            f"max(groundcrew_import_files{{{ENVIRONMENT}}})",
        )
    )
