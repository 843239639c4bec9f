"""Dashboard "Groundcrew: daemon": the process, its loop, the repo, the share and the messages."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from deploy.grafana.panels import JOB, dashboard, graph, number, rows

LAST_POLL = f"groundcrew_source_last_success_timestamp_seconds{{{JOB}}}"


def daemon() -> Dashboard:
    """Return the dashboard for the operators of Groundcrew."""
    board = dashboard("groundcrew-daemon", "Groundcrew: daemon", "The daemon and what it leans on.")
    for part in (_now, _loop, _outside, _process):
        board = part(board)
    return board


def _now(found: Dashboard) -> Dashboard:
    found = found.with_row(Row("Now"))
    found = found.with_panel(
        number(
            "Leaders",
            "Exactly one is right.",
            f"job:groundcrew_leader:sum{{{JOB}}}",
            bad=2,
            low=(1, 1),
        )
    )
    for title, description, query, unit, bad in (
        (
            "Last good poll",
            "How long ago the environments repo answered.",
            f"time() - max({LAST_POLL})",
            "s",
            300,
        ),
        (
            "Queue",
            "Builds that wait for a free slot.",
            f"max(groundcrew_build_queue_depth{{{JOB}}})",
            "short",
            None,
        ),
        (
            "Stalled objects",
            "With a mistake in their file.",
            f"max(groundcrew_stalled_objects{{{JOB}}})",
            "short",
            1,
        ),
        (
            "Messages that wait",
            "Tried on some route or for the forge, and not taken yet.",
            f"max(groundcrew_notifications_pending{{{JOB}}})",
            "short",
            10,
        ),
    ):
        found = found.with_panel(number(title, description, query, unit=unit, bad=bad))
    found = found.with_panel(
        number(
            "Share left",
            "Of the file system; alerts from 10 % down.",
            f"job:groundcrew_share_free:ratio{{{JOB}}}",
            unit="percentunit",
            low=(0.10, 0.2),
        )
    )
    return found.with_panel(
        rows(
            "Replicas",
            "1 leads, 0 stands by.",
            f"groundcrew_leader{{{JOB}}} * on (instance) group_left (version) "
            f"groundcrew_info{{{JOB}}}",
            ["instance", "version"],
            value="leads",
        )
    )


def _loop(found: Dashboard) -> Dashboard:
    found = found.with_row(Row("The loop"))
    buckets = f"groundcrew_reconcile_duration_seconds_bucket{{{JOB}}}"
    found = found.with_panel(
        graph(
            "Time of a cycle",
            "Half of them are faster than the one, 99 of 100 than the other.",
            {
                "half": f"histogram_quantile(0.5, sum by (le) (rate({buckets}[$__rate_interval])))",
                "99 of 100": f"job:groundcrew_reconcile_duration_seconds:p99_5m{{{JOB}}}",
            },
            unit="s",
        )
    )
    found = found.with_panel(
        graph(
            "Cycles a second",
            "At least one a minute, more when something happens.",
            f"sum(rate(groundcrew_reconcile_duration_seconds_count{{{JOB}}}[$__rate_interval]))",
        )
    )
    found = found.with_panel(
        graph(
            "Builds by phase",
            "As they are recorded.",
            {"{{phase}}": f"max by (phase) (groundcrew_builds{{{JOB}}})"},
        )
    )
    return found.with_panel(
        graph(
            "Problems by source",
            "Where they came up.",
            {"{{source}}": f"count by (source) (groundcrew_object_problem{{{JOB}}}) or vector(0)"},
            stacked=True,
        )
    )


def _outside(found: Dashboard) -> Dashboard:
    found = found.with_row(Row("What it leans on"))
    found = found.with_panel(
        graph(
            "Polls",
            "Of the environments repo, a second.",
            {
                "{{result}}": "sum by (result) "
                f"(rate(groundcrew_source_poll_total{{{JOB}}}[$__rate_interval]))"
            },
        )
    )
    found = found.with_panel(
        graph(
            "Age of the last good poll",
            "The alert fires at five minutes, or at three polls where these are further apart.",
            f"time() - max({LAST_POLL})",
            unit="s",
        )
    )
    found = found.with_panel(
        graph(
            "Share",
            "The whole file system beside what Groundcrew's store holds.",
            {
                "size": f"max(groundcrew_share_size_bytes{{{JOB}}})",
                "used": f"max(groundcrew_share_size_bytes{{{JOB}}}) "
                f"- max(groundcrew_share_free_bytes{{{JOB}}})",
                "store": f"max(groundcrew_store_bytes{{{JOB}}})",
            },
            unit="bytes",
        )
    )
    found = found.with_panel(
        graph(
            "Age of the share's last answer",
            "It is asked every 30 s.",
            f"time() - max(groundcrew_share_checked_timestamp_seconds{{{JOB}}})",
            unit="s",
        )
    )
    return (
        found.with_panel(
            graph(
                "Messages and commit statuses",
                "What became of them on all routes and at the forge, and how many wait.",
                {
                    "{{result}}": f"sum by (result) (groundcrew_notification_total{{{JOB}}})",
                    "waiting": f"max(groundcrew_notifications_pending{{{JOB}}})",
                },
            )
        )
        .with_panel(
            graph(
                "A scrape",
                "How long it takes to tell all this.",
                f"max(scrape_duration_seconds{{{JOB}}})",
                unit="s",
            )
        )
        .with_panel(
            graph(
                "State disk left",
                "Of each replica's own; alerts from 10 % down.",
                {
                    "{{instance}}": f"groundcrew_state_free_bytes{{{JOB}}}"
                    f" / groundcrew_state_size_bytes{{{JOB}}}"
                },
                unit="percentunit",
            )
        )
    )


def _process(found: Dashboard) -> Dashboard:
    found = found.with_row(Row("The process"))
    for title, description, query, unit in (
        (
            "CPU",
            "Cores in use; builds in the sandbox are processes of their own.",
            f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])",
            "short",
        ),
        ("Memory", "Resident.", f"process_resident_memory_bytes{{{JOB}}}", "bytes"),
        ("Open files", "And sockets.", f"process_open_fds{{{JOB}}}", "short"),
        ("Series", "Samples in a scrape.", f"scrape_samples_scraped{{{JOB}}}", "short"),
    ):
        found = found.with_panel(
            graph(title, description, {"{{instance}}": query}, unit=unit, width=6)
        )
    return found
