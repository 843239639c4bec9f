"""Records of a fleet with any number of environments and instances, in every state."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from reconciler.builder.manifest import Requirements, sbom
from reconciler.builder.resolve.choice import Wheel
from reconciler.builder.wheels.download import entry_digest
from reconciler.core import waits
from reconciler.core.definitions import (
    Api,
    Commit,
    Environment,
    Finding,
    Instance,
    KubernetesTarget,
    Place,
    Recipe,
    Requirement,
    Wave,
)
from reconciler.core.events import Event
from reconciler.core.model import (
    BARE,
    Activation,
    BuildRecord,
    Change,
    Deployment,
    EnvironmentRecord,
    InstanceRecord,
    Problem,
    Quarantine,
    RepoState,
)
from reconciler.core.phases import ActivationPhase, BuildPhase, Step, Trigger
from reconciler.core.reasons import Reason
from reconciler.core.runtime import Distribution, Runtime
from reconciler.core.waits import WindowState
from reconciler.core.world import build_key
from reconciler.share.share import Share
from reconciler.store.store import Store
from tests.fakes.events import event as stored_event

AT = float(int(time.time())) - 900.0  # the time of everything, in seconds since the epoch
REVISION = "5d41402abc4b2a76b9719d911017c592ae1b2c3d"
RUNTIME = Runtime(
    key="cp311-linux_x86_64-airflow3.0.6-0123456789ab",
    python="/usr/bin/python3",
    python_version="3.11.9",
    python_tag="cp311",
    platform="linux_x86_64",
    airflow_version="3.0.6",
    tags=("cp311-cp311-linux_x86_64", "py3-none-any"),
    base=tuple(Distribution(f"base-{n}", f"1.{n}") for n in range(40)),
)
PACKAGES = (("duckdb", "1.4.1"), ("pandas", "2.3.3"), ("pyarrow", "21.0.0"))
REQUIREMENTS = Requirements(
    frozenset({"duckdb", "pandas"}),
    {
        "duckdb": frozenset(),
        "pandas": frozenset({"pyarrow", "base-3"}),
        "pyarrow": frozenset(),
    },
)
OLDER = (("pandas", "2.2.3"), ("polars", "1.30.0"), ("pyarrow", "21.0.0"))
STATES = (
    "active",
    "draining",
    "waiting",
    "rolled-back",
    "degraded",
    "suspended",
    "new",
    "building",
    "failed",
)
SHUT = WindowState(False, AT + 36000.0, "2026-01-02 02:00 Europe/Berlin")
MARKUP = '<script>alert("x")</script> & <b>bold</b>'


def digest(*words: object) -> str:
    """Return a recipe digest."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


def build_id(number: int, age: int = 0) -> str:
    """Return the id of an instance's build; `age` 1 is the previous one."""
    return digest("build", number, age)[:16]


def state_of(number: int) -> str:
    """Return a state: nine instances cover all of them, and most are active."""
    return STATES[number] if number < len(STATES) else "active"


def name_of(number: int) -> str:
    """Return the name of an environment and of its only instance."""
    return f"{state_of(number)}-{number:04d}"


def environment(number: int, *, subject: str = "use pandas 2.3") -> EnvironmentRecord:
    """Return an environment with one instance in its rollout."""
    name, team = name_of(number), f"team-{number % 20:02d}"
    location = Place(f"teams/{team}/{name}.yaml", 3, 1)
    recipe = Recipe(digest(number), (Requirement("pandas>=2.2,<3", replace(location, line=6)),))
    return EnvironmentRecord(
        name,
        team,
        Environment(name, team, location, recipe, (Wave((name,), 600.0),)),
        Commit(REVISION, "A. Author", subject, AT),
        seen_at=AT,
    )


def builds(number: int) -> list[BuildRecord]:
    """Return the current build of an environment, and the previous one."""
    key = build_key(name_of(number), digest(number), RUNTIME.key)
    steps = ("Queued", "Resolving", "Building", "Verifying", "Ready")
    phase = {"building": BuildPhase.BUILDING, "failed": BuildPhase.FAILED}.get(
        state_of(number), BuildPhase.READY
    )
    reached = 3 if phase is BuildPhase.BUILDING else 5
    phases = tuple((s, AT + n * 4.5) for n, s in enumerate(steps[:reached]))
    if phase is BuildPhase.FAILED:
        phases = (*phases[:3], ("Failed", AT + 14))
    present = BuildRecord(
        key=key,
        environment=name_of(number),
        team=f"team-{number % 20:02d}",
        recipe_digest=digest(number),
        runtime_key=RUNTIME.key,
        revision=REVISION,
        phase=phase,
        created_at=AT,
        phases=phases,
        build_id=build_id(number) if phase is BuildPhase.READY else None,
        problem=Problem(
            Reason.RESOLUTION_CONFLICT,
            "pandas 3.0 needs numpy>=2.4, but the base has numpy 2.3.1; ask for pandas<3",
            Place(f"teams/team-{number % 20:02d}/{name_of(number)}.yaml", 6, 7),
        )
        if phase is BuildPhase.FAILED
        else None,
        packages=PACKAGES if phase is BuildPhase.READY else (),
    )
    before = replace(
        present,
        key=digest("before", number)[:16],
        recipe_digest=digest("before", number),
        phase=BuildPhase.READY,
        phases=tuple((s, AT - 86400 + n * 4.5) for n, s in enumerate(steps)),
        created_at=AT - 86400,
        build_id=build_id(number, 1),
        packages=OLDER,
        problem=None,
    )
    return [present, before]


def now_on(number: int) -> Deployment:
    """Return the current deployment of an instance."""
    return Deployment(build_id(number), digest(number), RUNTIME.key)


def before_on(number: int) -> Deployment:
    """Return the previous deployment of an instance."""
    return Deployment(build_id(number, 1), digest("before", number), RUNTIME.key)


def activation(number: int, step: Step, *phases: ActivationPhase) -> Activation:
    """Return an activation from the previous build to the current one."""
    load = ("scheduler", "worker")
    return Activation(
        id=digest("activation", number)[:12],
        origin=replace(before_on(number), load_into=load),
        target=replace(now_on(number), load_into=load),
        trigger=Trigger.COMMIT,
        revision=REVISION,
        step=step,
        started_at=AT + 20,
        step_since=AT + 30,
        phases=tuple((str(p), AT + 20 + n * 12.5) for n, p in enumerate(phases)),
    )


def instance(number: int) -> InstanceRecord:
    """Return an instance, in the state determined by its number."""
    name, team, state = name_of(number), f"team-{number % 20:02d}", state_of(number)
    P = ActivationPhase  # noqa: N806 - a short name for a long table
    there = (P.DRAINING, P.SWITCHING, P.RESTARTING, P.PROBING)
    wrong = Problem(Reason.NEW_IMPORT_ERRORS, "dags/report.py: No module named 'duckdb'")
    record = InstanceRecord(
        name,
        team,
        Instance(
            name,
            team,
            Place(f"instances/{name}.yaml", 1, 1),
            Api("http://airflow.example:8080"),
            kubernetes=KubernetesTarget(f"airflow-{name}", "airflow"),
        ),
        runtime=RUNTIME,
        fingerprint="mark",
        current=now_on(number),
        previous=before_on(number),
        active_since=AT + 70,
        last=activation(number, Step.DONE, *there, P.ACTIVE),
    )
    older = before_on(number)
    mark = Quarantine(build_id(number), digest(number), wrong.reason, wrong.message, AT + 90)
    match state:
        case "draining":
            running = activation(number, Step.DRAIN, P.DRAINING)
            return replace(record, current=older, previous=BARE, activation=running, last=None)
        case "waiting":
            return replace(record, current=older, wait=waits.for_window(SHUT))
        case "rolled-back":
            gone = activation(number, Step.ROLLED_BACK, *there, P.ROLLING_BACK, P.ROLLED_BACK)
            return replace(
                record,
                current=older,
                last=replace(gone, problem=wrong),
                quarantines=(mark,),
                problem=wrong,
            )
        case "degraded":
            broken = activation(number, Step.DEGRADED, *there, P.ROLLING_BACK, P.DEGRADED)
            return replace(
                record,
                current=older,
                activation=replace(broken, reverts=2, problem=wrong),
                problem=Problem(Reason.CRASH_LOOP, "scheduler was started three times and ended"),
            )
        case "suspended":
            return replace(record, suspended=True)
        case "new":
            return replace(
                record,
                runtime=None,
                current=BARE,
                previous=BARE,
                last=None,
                active_since=None,
            )
        case "building" | "failed":
            return replace(record, current=older, previous=BARE)
        case _:
            return record


def events(number: int, environment: EnvironmentRecord) -> list[Event]:
    """Return the history of one environment and its instance."""
    name, team = name_of(number), f"team-{number % 20:02d}"
    said = {"author": environment.commit.author, "subject": environment.commit.subject}
    change = {
        "packages_added": ["duckdb 1.4.1"],
        "packages_removed": ["polars 1.30.0"],
        "packages_changed": ["pandas 2.2.3 → 2.3.3"],
    }
    phases = {"Draining": 12.5, "Switching": 0.2, "Restarting": 31.0, "Probing": 9.0}
    return [
        stored_event(
            AT,
            "EnvironmentAccepted",
            f"environment/{name}",
            team,
            "EnvironmentAccepted",
            environment.commit.subject,
            REVISION,
        ),
        stored_event(
            AT + 18,
            "BuildReady",
            f"environment/{name}",
            team,
            "BuildReady",
            "3 packages to install",
            REVISION,
            {
                "build": build_id(number),
                "packages": [list(p) for p in PACKAGES],
                "seconds": 18.0,
                "phases": {"Resolving": 4.5, "Building": 9.0, "Verifying": 4.5},
                **said,
            },
        ),
        stored_event(
            AT + 70,
            "ActivationActive",
            f"instance/{name}",
            team,
            "ActivationActive",
            f"{build_id(number)} is active",
            REVISION,
            {
                "from": build_id(number, 1),
                "to": build_id(number),
                "seconds": 52.7,
                "phases": phases,
                **change,
                **said,
            },
        ),
    ]


def fill(store: Store, count: int, *, subject: str = "use pandas 2.3") -> None:
    """Write a fleet of `count` instances, each with its own environment."""
    store.migrate()
    lease = store.acquire("fleet", 600.0)
    assert lease is not None
    numbers = range(count)
    environments = [environment(n, subject=subject) for n in numbers]
    finding = Finding(
        Place("teams/team-01/typo.yaml", 4, 3),
        "Environment/typo",
        Reason.UNKNOWN_KEY,
        "requirments: no such key; did you mean requirements?",
    )
    store.write(
        lease,
        Change(
            environments=tuple(environments),
            instances=tuple(instance(n) for n in numbers),
            builds=tuple(b for n in numbers for b in builds(n)),
            events=tuple(e for n in numbers for e in events(n, environments[n])),
            repo=RepoState(accepted_revision=REVISION, findings=(finding,)),
        ),
    )
    store.release(lease)


def place_package(share: Share, name: str, version: str, files: int = 60) -> str:
    """Put a package with that many modules on a share; return the digest of its store entry."""
    lines = [
        f"{name}/__init__.py,sha256=x,2400",
        *(f"{name}/part{n % 7}/module_{n}.py,sha256=x,{1200 + 37 * n}" for n in range(files - 1)),
        f"{name}-{version}.dist-info/RECORD,,",
    ]
    entry = entry_digest(digest(name), "cp311")
    with tempfile.TemporaryDirectory() as folder:
        info = Path(folder, "lib", f"{name}-{version}.dist-info")
        info.mkdir(parents=True)
        (info / "RECORD").write_text("\n".join(lines) + "\n")
        share.put(entry, Path(folder))
    return entry


def place_builds(share: Share, count: int) -> None:
    """Put the current builds on a share, with lock, SBOM, log and verification report."""
    share.prepare()
    entries = [place_package(share, n, v) for n, v in PACKAGES]
    jars = digest("jars")
    with tempfile.TemporaryDirectory() as folder:
        jar = Path(folder, "files", "jars", "postgresql-42.7.4.jar")
        jar.parent.mkdir(parents=True)
        jar.write_bytes(b"PK" * 500_000)
        share.put(jars, Path(folder))
    for number in range(count):
        one = build_id(number)
        packages = [{"name": n, "version": v, "sha256": digest(n)} for n, v in PACKAGES]
        lock = "lock-version = '1.0'\n" + "".join(
            f"[[packages]]\nname = '{n}'\nversion = '{v}'\n" for n, v in PACKAGES
        )
        document = {
            "schema": 1,
            "build": one,
            "abi": "cp311-linux_x86_64",
            "entries": [*entries, jars],
            "distributions": packages,
            "paths": [{"path": f"store/sha256/{e[:2]}/{e}/lib", "pth": False} for e in entries],
            "jars": [f"store/sha256/{jars[:2]}/{jars}/files/jars/postgresql-42.7.4.jar"],
            "bin": [],
            "env": {"ACME_REGION": "eu"},
            "airflow": "3.0.6",
        }
        wheels = [Wheel(n, v, f"{n}-{v}.whl", digest(n)) for n, v in PACKAGES]
        share.put_build(
            one,
            {
                "build.json": json.dumps(document).encode(),
                "pylock.toml": lock.encode(),
                "sbom.cdx.json": sbom(one, wheels, REQUIREMENTS).encode(),
                "build.log": b"resolved 3 packages\nverified\n",
            },
        )
        share.mark_verified(
            one,
            RUNTIME.key,
            {"modules": 812, "seconds": 1.9, "opens": 2310, "files": 1904, "bytes": 31 << 20},
        )
