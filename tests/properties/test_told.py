"""Each fact is told once, with the commit, author or operator of its own, in any history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from metrics.facts import Fact, identity
from metrics.notifier import FACT, Notifier
from reconciler.core.definitions import Wave
from reconciler.core.event_codec import data_of
from reconciler.core.events import Event
from reconciler.core.model import Verb
from reconciler.settings import NotifySettings, RouteSettings
from tests.fakes.definitions import environment, instance
from tests.fakes.simulated_world import House

ENVIRONMENTS = {"one": ("a", "b"), "two": ("c",)}
OWNERS = {name: env for env, names in ENVIRONMENTS.items() for name in names}
NAMES = st.sampled_from(sorted(ENVIRONMENTS))
KINDS = st.sampled_from("gggglrv")
ENDS = ("ActivationActive", "RolledBack", "ActivationAborted")
TARGETS = st.sampled_from(["instance/a", "instance/c", "environment/one", "environment/two"])


class Messages:
    """The outbox of a notifier, in memory; `facts` has what was queued, by the event's id."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self.facts: dict[int, Fact] = {}
        self._cursor = 0

    def events(
        self,
        *,
        after_id: int = 0,
        object: str | None = None,  # noqa: A002 - as the store names it
        kinds: Sequence[str] = (),
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[Event]:
        fitting = [
            event
            for event in self.all
            if event.id > after_id
            and object in (None, event.object)
            and (not kinds or event.kind in kinds)
        ]
        return fitting[: -limit - 1 : -1] if newest_first else fitting[:limit]

    def notified(self) -> int:
        return self._cursor

    def settle(self, message: int, state: str, error: str = "") -> None:
        raise AssertionError("nothing is delivered here")

    def enqueue(self, cursor: int, messages: dict[str, str]) -> None:
        self._cursor = cursor
        for key, payload in messages.items():
            number = int(key.rpartition("-")[2])
            assert number not in self.facts, "a fact is told once"
            self.facts[number] = FACT.validate_json(payload)


class Told(RuleBasedStateMachine):
    """Histories of two environments; what is recorded and told is held against what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.house = House()
        self.serial = 0
        self.outbox = Messages()
        route = RouteSettings(name="hook", kind="webhook", secret="hook")
        self.notifier = Notifier(
            self.outbox,  # type: ignore[arg-type]
            Path("/nowhere"),
            notify=NotifySettings(routes=(route,)),
        )
        self.asked: dict[str, dict[str, str]] = {}  # revision → environment → recipe digest
        self.claims: dict[str, tuple[str, str]] = {}  # environment → (digest, its commit)
        self.seen = ""
        self.starts: dict[str, Event] = {}  # by the activation's id
        self.ended: set[str] = set()
        for name in "abc":
            self.house.join(instance(name))
        for name in ENVIRONMENTS:
            self._define(name, "g")
        self._commit()

    def _define(self, name: str, kind: str, digest: str = "") -> None:
        self.serial += 1
        waves = tuple(Wave((i,)) for i in ENVIRONMENTS[name])
        self.house.environments[name] = environment(name, digest or f"{kind}{self.serial}", waves)

    def _commit(self) -> None:
        self.house.commit()
        self.asked[f"r{self.house.revision}"] = {
            name: one.recipe.digest for name, one in self.house.environments.items()
        }

    # ------------------------------------------------------------------------------- histories

    @rule(name=NAMES, kind=KINDS)
    def commit(self, name: str, kind: str) -> None:
        self._define(name, kind)
        self._commit()

    @rule(name=NAMES, kinds=st.tuples(KINDS, KINDS))
    def two_commits_in_one_poll(self, name: str, kinds: tuple[str, str]) -> None:
        for kind in kinds:
            self._define(name, kind)
            self._commit()

    @rule(name=NAMES, back=st.integers(1, 3), turns=st.sampled_from([0, 0, 15]))
    def revert(self, name: str, back: int, turns: int) -> None:
        """Return to an earlier definition, which differs from the one that counts now."""
        self.go_on(turns, 1.0)
        digests = list(dict.fromkeys(asked[name] for asked in self.asked.values() if name in asked))
        current = self.house.environments.get(name)
        earlier = [d for d in digests if current is None or d != current.recipe.digest]
        if earlier:
            self._define(name, "g", earlier[-min(back, len(earlier))])
            self._commit()
        self.go_on(turns, 1.0)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.house.environments.pop(name, None)
        self._commit()

    @rule(
        verb=st.sampled_from([Verb.ROLLBACK, Verb.ROLLBACK, Verb.RETRY, Verb.SUSPEND]), what=TARGETS
    )
    def someone_asks(self, verb: Verb, what: str) -> None:
        self.house.ask(verb, what)

    @rule(what=TARGETS)
    def someone_resumes(self, what: str) -> None:
        self.house.ask(Verb.RESUME, what)

    @rule(fault=st.sampled_from(["build", "api", "restart", "image"]))
    def toggle_fault(self, fault: str) -> None:
        self.house.faults ^= {fault}

    @rule(name=st.sampled_from("abc"), starts=st.booleans())
    def a_task_starts_or_ends(self, name: str, starts: bool) -> None:
        real = self.house.airflow[name]
        if starts and any(real.pools.values()):
            real.tasks.append(real.running)
        elif not starts:
            del real.tasks[:1]

    @rule(turns=st.integers(1, 15), seconds=st.sampled_from([0.5, 1.0, 61.0]))
    def go_on(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            self.house.cycle()
            self._check_cycle()
            for key in list(self.house.under_way):
                self.house.act(key)
            self.house.now += seconds

    # --------------------------------------------------------------------------------- the oracle

    def _check_cycle(self) -> None:
        """Hold what the last cycle has recorded against the revision that it has accepted."""
        accepted = self.house.records.repo.accepted_revision
        if accepted != self.seen:
            self.seen = accepted
            for name in ENVIRONMENTS:
                digest = self.asked[accepted].get(name)
                if digest is None:
                    self.claims.pop(name, None)
                elif self.claims.get(name, ("", ""))[0] != digest:
                    self.claims[name] = digest, accepted
        fresh = self.house.events[len(self.outbox.all) :]
        for event in fresh:
            self.outbox.all.append(replace(event, id=len(self.outbox.all) + 1))
            self._check_event(self.outbox.all[-1])
        self.notifier.enqueue()

    def _check_event(self, event: Event) -> None:
        if event.kind in ("BuildReady", "BuildFailed"):
            name = event.object.removeprefix("environment/")
            key = str(data_of(event)["key"])
            build = self.house.records.builds.get(key)
            assert build is None or self.asked[event.revision][name] == build.recipe_digest, event
            assert data_of(event)["author"] == f"author of {event.revision}", event
        elif event.kind == "ActivationStarted":
            self._check_start(event)
        elif event.kind in (*ENDS, "Degraded"):
            self._check_end(event)

    def _check_start(self, event: Event) -> None:
        activation = str(data_of(event)["activation"])
        assert activation not in self.starts, "an id is of one activation"
        open_ones = {
            key for key, start in self.starts.items() if start.object == event.object
        } - self.ended
        assert not open_ones or self._was_degraded(event.object), "the one before has ended"
        self.ended |= open_ones
        self.starts[activation] = event
        if data_of(event)["trigger"] == "commit":
            digest, revision = self.claims[OWNERS[event.object.removeprefix("instance/")]]
            assert str(data_of(event)["to"]).startswith(f"{digest}@"), event
            assert event.revision == revision, event
            assert data_of(event)["author"] == f"author of {revision}", event
        else:
            assert "author" not in data_of(event), "nobody's commit asked for it"
        assert (data_of(event)["trigger"] == "operator") == (data_of(event)["who"] == "someone"), (
            event
        )

    def _was_degraded(self, name: str) -> bool:
        kinds = [e.kind for e in self.outbox.all[:-1] if e.object == name]
        return "Degraded" in kinds

    def _check_end(self, event: Event) -> None:
        activation = str(data_of(event)["activation"])
        start = self.starts[activation]
        assert activation not in self.ended, "it ends once, and nothing is said of it later"
        if event.kind in ENDS:
            self.ended.add(activation)
        same = ("trigger", "who", "author", "subject", "environment")
        assert [data_of(event).get(k) for k in same if k != "environment"] == [
            data_of(start).get(k) for k in same if k != "environment"
        ], (start, event)
        assert event.revision == start.revision, (start, event)

    @invariant()
    def each_message_names_its_own(self) -> None:
        for number, fact in self.outbox.facts.items():
            event = self.outbox.all[number - 1]
            if fact.trigger in ("", "commit"):
                assert fact.revision == event.revision
                if data_of(event).get("author"):
                    assert fact.author == f"author of {event.revision}"
            else:
                assert (fact.revision, fact.author) == ("", "")
            if "activation" in data_of(event):
                own = self.starts[str(data_of(event)["activation"])]
                assert fact.activation, (event, "it goes into the thread of its start")
                assert identity(self.outbox.all[fact.activation - 1]) == identity(own)

    @invariant()
    def whatever_has_changed_is_told(self) -> None:
        told: set[tuple[str, ...]] = set()
        for event in self.outbox.all:
            if event.id in self.outbox.facts:
                told.add(identity(event))
            elif event.kind == "ActivationActive":
                assert data_of(event)["from"] == data_of(event)["to"], event
            elif event.kind in ("RolledBack", "Degraded", "BuildFailed"):
                assert identity(event) in told, event

    def teardown(self) -> None:
        """Finish the history, with nothing broken any more."""
        self.house.faults.clear()
        for real in self.house.airflow.values():
            real.tasks.clear()
        for _ in range(40):
            self.go_on(1, 31.0)
        self.each_message_names_its_own()
        self.whatever_has_changed_is_told()


class TestTold(Told.TestCase):  # type: ignore[misc, valid-type]
    """Some hundred histories."""

    settings = settings(
        max_examples=100,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
