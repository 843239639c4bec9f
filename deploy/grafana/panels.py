"""Panel types shared by the dashboards, each with one layout.

Every query uses the data source, job and namespace that are chosen at the top of the dashboard.
Widths are columns of 24, heights rows of 30 px.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, statetimeline, table
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import timeseries as lines
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
JOB = 'job="$job", namespace=~"$namespace"'
"""Filter for one installation, or all of a job; outside Kubernetes, All matches no namespace."""

Panel = Builder[models.Panel]
Queries = Mapping[str, str] | str  # expression by legend, or one expression


def _queries(queries: Queries, *, instant: bool) -> list[prometheus.Dataquery]:
    by_legend = {"": queries} if isinstance(queries, str) else queries
    targets = []
    for number, (legend, expression) in enumerate(by_legend.items()):
        target = prometheus.Dataquery().datasource(SOURCE).expr(expression)
        target = target.ref_id("ABCDEFGH"[number]).legend_format(legend)
        targets.append(target.instant() if instant else target.range())
    return targets


def _steps(lowest: str, *above: tuple[float, str]) -> build.ThresholdsConfig:
    """Return thresholds: the colour of the lowest values, and of values from each step upwards."""
    steps = [models.Threshold(value=None, color=lowest)]
    steps += [models.Threshold(value=value, color=color) for value, color in above]
    return build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def number(
    title: str,
    words: str,
    query: Queries,
    *,
    unit: str = "short",
    bad: float | None = None,
    low: tuple[float, float] | None = None,
) -> Panel:
    """Return the current value: red from `bad` up, and red or orange below the bounds of `low`."""
    above = [(low[0], "orange"), (low[1], "green")] if low is not None else []
    if bad is not None:
        above.append((bad, "red"))
    panel = stat.Panel().title(title).description(words).datasource(SOURCE).unit(unit)
    panel = panel.thresholds(_steps("red" if low else "green", *above)).span(4).height(4)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    for target in _queries(query, instant=True):
        panel = panel.with_target(target)
    return panel


def word(title: str, words: str, query: str, label: str, *, width: int = 4) -> Panel:
    """Return the value of a label of the single series that `query` finds."""
    panel = stat.Panel().title(title).description(words).datasource(SOURCE)
    panel = panel.text_mode(common_models.BigValueTextMode.NAME).span(width).height(4)
    panel = panel.color_mode(common_models.BigValueColorMode.NONE)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    for target in _queries({f"{{{{{label}}}}}": query}, instant=True):
        panel = panel.with_target(target)
    return panel


def graph(
    title: str,
    words: str,
    queries: Queries,
    *,
    unit: str = "short",
    stacked: bool = False,
    width: int = 12,
) -> Panel:
    """Return values over time, from 0 up."""
    panel = lines.Panel().title(title).description(words).datasource(SOURCE).unit(unit).min(0)
    panel = panel.span(width).height(8)
    if stacked:
        mode = common.StackingConfig().mode(common_models.StackingMode.NORMAL)
        panel = panel.stacking(mode).fill_opacity(30)
    for target in _queries(queries, instant=False):
        panel = panel.with_target(target)
    return panel


def bars(
    title: str, words: str, queries: Queries, *, unit: str = "short", width: int = 12
) -> Panel:
    """Return the current values, side by side."""
    panel = bargauge.Panel().title(title).description(words).datasource(SOURCE).unit(unit).min(0)
    panel = panel.orientation(common_models.VizOrientation.HORIZONTAL).span(width).height(8)
    panel = panel.thresholds(_steps("green"))
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    for target in _queries(queries, instant=True):
        panel = panel.with_target(target)
    return panel


def timeline(title: str, words: str, queries: Queries, *, width: int = 24) -> Panel:
    """Return a timeline with one row per series, filled while the series exists."""
    panel = statetimeline.Panel().title(title).description(words).datasource(SOURCE)
    panel = panel.show_value(common_models.VisibilityMode.NEVER).span(width).height(8)
    for target in _queries(queries, instant=False):
        panel = panel.with_target(target)
    return panel


def rows(
    title: str,
    words: str,
    query: str,
    columns: Sequence[str],
    *,
    links: Mapping[str, str] | None = None,
    value: str = "",
    width: int = 24,
) -> Panel:
    """Return a table of labels in the order of `columns`; `value` adds the value as a column."""
    panel = table.Panel().title(title).description(words).datasource(SOURCE)
    panel = panel.span(width).height(9).filterable(True)
    target = prometheus.Dataquery().datasource(SOURCE).expr(query).ref_id("A").instant()
    panel = panel.with_target(target.format(PromQueryFormat.TABLE))
    shown = [*columns, "Value"] if value else list(columns)
    options: dict[str, object] = {
        "indexByName": {name: position for position, name in enumerate(shown)},
        "renameByName": {"Value": value} if value else {},
    }
    panel = panel.with_transformation(
        models.DataTransformerConfig(
            id_val="filterFieldsByName", options={"include": {"names": shown}}
        )
    ).with_transformation(models.DataTransformerConfig(id_val="organize", options=options))
    for column, url in (links or {}).items():
        link = {"title": "Look closer", "url": url}
        panel = panel.override_by_name(column, [models.DynamicConfigValue("links", [link])])
    return panel


# --------------------------------------------------------------------------------- dashboards


def activations(board: build.Dashboard, labels: str) -> build.Dashboard:
    """Mark on all graphs when an instance changed to another build, and when one was rolled back.

    A mark is a state that was not there one step earlier. The instance has to be there in both, so
    that a restarted daemon makes no marks; counters would miss the first rollback of an instance.
    """
    marks = (
        ("Build activated", "blue", "build", f"groundcrew_instance_info{{{labels}}}"),
        (
            "Rolled back",
            "red",
            "phase",
            f'groundcrew_instance_phase{{{labels}, phase="RolledBack"}}',
        ),
    )
    known = f"max by (instance) (groundcrew_instance_info{{{labels}}} offset $__interval)"
    for name, color, label, series in marks:
        now = f"max by (instance, {label}) ({series})"
        before = f"max by (instance, {label}) ({series} offset $__interval)"
        annotation = build.AnnotationQuery().name(name).datasource(SOURCE).icon_color(color)
        expression = f"({now} unless {before}) and on (instance) {known}"
        board = board.annotation(annotation.enable(True).expr(expression))
    return board


def dashboard(uid: str, title: str, words: str) -> build.Dashboard:
    """Return an empty dashboard with variables for data source and job."""
    board = build.Dashboard(title).uid(uid).description(words).tags(["groundcrew"]).readonly()
    board = board.time("now-24h", "now").refresh("1m").timezone("browser")
    board = board.tooltip(models.DashboardCursorSync.CROSSHAIR)
    others = build.DashboardLink("Groundcrew").type(models.DashboardLinkType.DASHBOARDS)
    board = board.link(others.tags(["groundcrew"]).as_dropdown(True).include_vars(True))
    source = build.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return (
        board.with_variable(source)
        .with_variable(choice("job", "Job", "label_values(groundcrew_leader, job)"))
        .with_variable(
            choice(
                "namespace",
                "Namespace",
                'label_values(groundcrew_leader{job="$job"}, namespace)',
                several=True,
            )
        )
    )


def choice(name: str, label: str, query: str, *, several: bool = False) -> build.QueryVariable:
    """Return a variable with values from Prometheus; `several` allows many values, or all."""
    variable = build.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    variable = variable.sort(models.VariableSort.ALPHABETICAL_ASC)
    if several:
        variable = variable.multi(True).include_all(True).all_value(".*")
    return variable
