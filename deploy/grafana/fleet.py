"""Dashboard "Groundcrew: fleet": every instance and environment of the chosen teams."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row, TextBoxVariable

from deploy.grafana.panels import JOB, activations, bars, choice, dashboard, graph, number, rows

MINE = f'{JOB}, team=~"$team"'
INFO = f"groundcrew_instance_info{{{MINE}}}"
TEAM_OF = f"max by (instance, team) (groundcrew_instance_phase{{{MINE}}})"
CLOSER = (
    "/d/groundcrew-instance?${datasource:queryparam}&${job:queryparam}&${namespace:queryparam}"
    "&var-instance="
)


def fleet() -> Dashboard:
    """Return the dashboard of the state of all objects, their problems and durations."""
    board = dashboard(
        "groundcrew-fleet", "Groundcrew: fleet", "All instances and environments of the teams."
    )
    board = board.with_variable(
        choice(
            "team", "Team", f"label_values(groundcrew_instance_info{{{JOB}}}, team)", several=True
        )
    )
    target = TextBoxVariable("target").label("Target of commit to active, in seconds")
    board = activations(board.with_variable(target.default_value("900")), MINE)
    for part in (_now, _problems, _flow, _costs):
        board = part(board)
    return board


def _now(found: Dashboard) -> Dashboard:
    def counted(title: str, words: str, labels: str, bad: float | None = None) -> None:
        series = f"groundcrew_instance_info{{{MINE}, {labels}}}"
        found.with_panel(number(title, words, f"count({series}) or vector(0)", bad=bad))

    found = found.with_row(Row("Now"))
    found = found.with_panel(number("In all", "Instances of the teams.", f"count({INFO})"))
    counted("In sync", "They have what the newest revision asks for.", 'sync_status="Synced"')
    counted("Under way", "An activation runs.", 'health_status="Progressing"')
    counted("Degraded", "Going back failed too.", 'health_status="Degraded"', 1)
    found = found.with_panel(
        number(
            "Quarantined builds",
            "Builds that failed on an instance.",
            f"sum(groundcrew_quarantined_builds{{{MINE}}})",
            bad=1,
        )
    )
    return found.with_panel(
        number(
            "Objects with problems",
            "The table below says which.",
            f"count(count by (object) (groundcrew_object_problem{{{MINE}}})) or vector(0)",
            bad=1,
        )
    )


def _problems(found: Dashboard) -> Dashboard:
    found = found.with_panel(
        rows(
            "Problems",
            "What is wrong now, and where it came up. `groundcrew status` has the words.",
            f"groundcrew_object_problem{{{MINE}}}",
            ["object", "team", "source", "reason"],
        )
    )
    return found.with_panel(
        rows(
            "Instances",
            "Click on one for more.",
            INFO,
            [
                "instance",
                "team",
                "environment",
                "sync_status",
                "health_status",
                "suspended",
                "build",
                "revision",
            ],
            links={"instance": CLOSER + "${__value.text}"},
        )
    )


def _flow(found: Dashboard) -> Dashboard:
    found = found.with_row(Row("Over time"))
    found = found.with_panel(
        graph(
            "Instances by sync status",
            "OutOfSync for long is what the alert is about.",
            {"{{sync_status}}": f"count by (sync_status) ({INFO})"},
            stacked=True,
        )
    )
    found = found.with_panel(
        graph(
            "Instances by phase",
            "Waiting, under way, active, taken back.",
            {"{{phase}}": f"count by (phase) (groundcrew_instance_phase{{{MINE}}})"},
            stacked=True,
        )
    )
    found = found.with_panel(
        graph(
            "Activations that ended",
            "By what became of them.",
            {
                "{{result}}": "sum by (result) (increase(groundcrew_activation_total"
                f"{{{JOB}}}[$__rate_interval]) * on (instance) group_left (team) {TEAM_OF})"
            },
        )
    )
    found = found.with_panel(
        graph(
            "Builds that ended",
            "By what became of them.",
            {
                "{{result}}": "sum by (result) "
                f"(increase(groundcrew_build_total{{{MINE}}}[$__rate_interval]))"
            },
        )
    )
    return found.with_panel(
        graph(
            "Instances that wait",
            "On what a wanted activation waits.",
            {"{{on}}": f"count by (on) (groundcrew_instance_waiting{{{MINE}}}) or vector(0)"},
            stacked=True,
        )
    ).with_panel(
        bars(
            "Rollbacks by what set them off",
            "Since the records begin.",
            {
                "{{trigger}}": "sum by (trigger) (groundcrew_rollback_total"
                f"{{{JOB}}} * on (instance) group_left (team) {TEAM_OF})"
            },
        )
    )


def _costs(found: Dashboard) -> Dashboard:
    found = found.with_row(Row("How long it takes"))
    found = found.with_panel(
        graph(
            "From a seen commit to active",
            "Of the day before: what teams feel. The target is set at the top of the dashboard.",
            {
                "half": "histogram_quantile(0.5, sum by (le) "
                f"(rate(groundcrew_commit_to_active_seconds_bucket{{{JOB}}}[1d])))",
                "95 of 100": f"job:groundcrew_commit_to_active_seconds:p95_1d{{{JOB}}}",
                "target": f"max(groundcrew_leader{{{JOB}}}) * 0 + $target",
            },
            unit="s",
        )
    )
    found = found.with_panel(
        bars(
            "Mean time of each phase",
            "Of the activations in the chosen time.",
            {
                "{{phase}}": "sum by (phase) (increase(groundcrew_activation_duration_seconds_sum"
                f"{{{JOB}}}[$__range])) / (sum by (phase) "
                f"(increase(groundcrew_activation_duration_seconds_count{{{JOB}}}[$__range])) > 0)"
            },
            unit="s",
        )
    )
    found = found.with_panel(
        bars(
            "Mean time of a build",
            "From queued to ready, by team.",
            {
                "{{team}}": f"sum by (team) (groundcrew_build_duration_seconds_sum{{{MINE}}}) "
                f"/ sum by (team) (groundcrew_build_duration_seconds_count{{{MINE}}})"
            },
            unit="s",
        )
    )
    found = found.with_panel(
        bars(
            "Imports of a build",
            "Time to import all that an environment's newest build brings.",
            {
                "{{environment}}": f"groundcrew_import_seconds{{{JOB}}} * on (environment) "
                f"group_left (team) max by (environment, team) "
                f"(groundcrew_environment_info{{{MINE}}})"
            },
            unit="s",
        )
    )
    return found.with_panel(
        bars(
            "Imports that grew",
            "How many times as much they cost as those of the build before; 1: no regression.",
            {
                "{{environment}}": f"groundcrew_import_regression_ratio{{{JOB}}} "
                f"* on (environment) group_left (team) max by (environment, team) "
                f"(groundcrew_environment_info{{{MINE}}})"
            },
        )
    )
