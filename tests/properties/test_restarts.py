"""Restarts of some components only, in random histories of builds, failures and rollbacks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core.definitions import Wave
from reconciler.core.model import Verb
from reconciler.core.restarts import Content, Layout, builds_in, kept, part_of
from reconciler.core.restarts import Switch as Builds
from tests.fakes.airflow import SELECTIVE
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House
from tests.harness.machine import check_processes

NAMES = ("lib", "plugin", "helper", "other")
DIGESTS = st.sampled_from("12")
CONTENTS = st.builds(
    Content,
    distributions=st.dictionaries(st.sampled_from(NAMES), DIGESTS),
    requires=st.dictionaries(
        st.sampled_from(NAMES), st.frozensets(st.sampled_from((*NAMES, "of-the-base")))
    ),
    modules=st.dictionaries(st.sampled_from(NAMES), st.frozensets(st.sampled_from("mn"))),
    declaring=st.frozensets(st.sampled_from(NAMES)),
    env=st.dictionaries(st.sampled_from(["AIRFLOW__CORE__X", "OTHER"]), DIGESTS),
    files=st.sampled_from(["", "f"]),
)
COMPONENTS = ("api-server", "dag-processor", "scheduler", "triggerer", "worker", "webserver")
LAYOUTS = st.builds(
    Layout,
    components=st.frozensets(st.sampled_from(COMPONENTS)).map(lambda s: tuple(sorted(s))),
    scheduler_runs_tasks=st.booleans(),
    configured=st.sampled_from([(), ("m",)]),
)
KINDS = st.sampled_from(["commit", "commit", "commit", "fails", "restarts", "rollback", "patch"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(KINDS, st.sampled_from(SELECTIVE)), min_size=3, max_size=14))
def test_a_component_that_keeps_its_process_lacks_nothing(acts: list[tuple[str, str]]) -> None:
    """Whatever happens, at rest no component lacks anything that it would load after a restart."""
    house = House()
    house.join(instance("a"))
    for serial, (kind, component) in enumerate([("commit", ""), *acts], start=1):
        real = house.airflow["a"]
        if kind in ("commit", "fails"):
            digest = f"{'g' if kind == 'commit' else 'l'}{serial}"
            house.environments["one"] = environment("one", digest, (Wave(("a",)),))
            house.commit()
        elif kind == "rollback":
            house.ask(Verb.ROLLBACK, "instance/a")
        elif kind == "patch":
            real.patch()
        else:
            real.selective[component] = real.pointer
        house.settle()
        record = house.records.instances["a"]
        assert record.activation is None
        check_processes(record, real)
        assert builds_in(record.earlier) <= {*house.complete}


@settings(max_examples=500, deadline=None)
@given(CONTENTS, CONTENTS, CONTENTS, LAYOUTS)
def test_what_keeps_running_loads_nothing_that_differs(
    first: Content, second: Content, third: Content, layout: Layout
) -> None:
    """A component that loads everything is kept for equal builds only; keeping it is transitive."""
    chosen = kept(layout, Builds(first, second), COMPONENTS)
    assert {*chosen} <= {*layout.components}
    everything = (first.distributions, first.env, first.files)
    same = everything == (second.distributions, second.env, second.files)
    for name in ("dag-processor", "triggerer", "worker"):
        assert (name in chosen) == (same and name in layout.components)
    if layout.scheduler_runs_tasks or "dag-processor" not in layout.components:
        assert ("scheduler" in chosen) == (same and "scheduler" in layout.components)
    again = {*chosen} & {*kept(layout, Builds(second, third), COMPONENTS)}
    assert again <= {*kept(layout, Builds(first, third), COMPONENTS)}


@settings(max_examples=500, deadline=None)
@given(CONTENTS, LAYOUTS, st.sampled_from(SELECTIVE))
def test_a_server_loads_what_declares_itself_with_all_that_this_requires(
    content: Content, layout: Layout, component: str
) -> None:
    """Changing any distribution that is reached from a declaring one changes the part."""
    part = {name for kind, name, _ in part_of(content, component, layout) if kind == "package"}
    assert content.declaring & content.distributions.keys() <= part
    for name in part:
        wanted = content.requires.get(name, frozenset())
        assert wanted & content.distributions.keys() <= part
    named = {n for n, modules in content.modules.items() if modules & {*layout.configured}}
    assert named & content.distributions.keys() <= part
