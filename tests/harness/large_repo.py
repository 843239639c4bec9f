"""Large environments repo with its records, created quickly, and with nothing left to do.

Each team has a hundred environments; one in ten of them has an instance, whose build is active.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from gitsource.source import Source
from reconciler.core.decide import decide
from reconciler.core.model import BuildRecord, Deployment, Records
from reconciler.core.phases import BuildPhase
from reconciler.core.runtime import Distribution, Runtime
from reconciler.core.world import World, build_key
from reconciler.daemon.wiring import Wiring
from reconciler.settings import GitSettings, LocalSettings, Settings
from reconciler.share.share import Share
from reconciler.store.store import Store

PER_TEAM = 100
PER_INSTANCE = 10
RUNTIME = Runtime(
    key="cp311-linux_x86_64-airflow3.0.6-0123456789ab",
    python="/usr/bin/python3",
    python_version="3.11.9",
    python_tag="cp311",
    platform="linux_x86_64",
    airflow_version="3.0.6",
    tags=tuple(f"cp3{n}-abi3-manylinux_2_{m}_x86_64" for n in range(12) for m in range(40)),
    base=tuple(
        Distribution(f"base-{n}", f"1.{n}.0", tuple(f"base-{m}>=1.0" for m in range(n, n + 6)))
        for n in range(500)
    ),
)


def instance(name: str, team: str) -> str:
    """Return the text of an instance's file."""
    return (
        f"apiVersion: groundcrew/v1\nkind: Instance\nmetadata: {{name: {name}}}\nspec:\n"
        f"  team: {team}\n"
        f"  local: {{python: /usr/bin/python3, airflowHome: /srv/{name},"
        f" components: {{scheduler: {{restart: [/bin/true]}}}}}}\n"
        f'  api: {{url: "http://127.0.0.1:9/"}}\n'
        f"  maintenance:\n"
        f'    window: {{cron: "0 2 * * *", duration: 2h, timezone: Europe/Berlin}}\n'
    )


def environment(name: str, instances: str = "", pin: str = "2.2") -> str:
    """Return the text of an environment's file."""
    rollout = f"  rollout:\n    - {{instances: [{instances}]}}\n" if instances else ""
    return (
        f"apiVersion: groundcrew/v1\nkind: Environment\nmetadata: {{name: {name}}}\nspec:\n"
        f"  extends: [platform]\n"
        f"  requirements:\n    - pandas>={pin},<3\n    - duckdb>=1.2\n    - pyarrow>=20\n"
        f"  constraints: [constraints.txt]\n"
        f"  env: {{ACME_REGION: eu}}\n  checks: {{imports: [pandas]}}\n{rollout}"
    )


def path_of(number: int) -> str:
    """Return the path of an environment's file."""
    return f"teams/team-{number // PER_TEAM:03d}/env-{number:05d}.yaml"


def text_of(number: int, pin: str = "2.2") -> str:
    """Return the text of the file of an environment."""
    wave = f"instance-{number:05d}" if number % PER_INSTANCE == 0 else ""
    return environment(f"env-{number:05d}", wave, pin)


def files(count: int) -> dict[str, str]:
    """Return a repo with `count` environments, by path."""
    texts = {
        "shared/platform.yaml": "apiVersion: groundcrew/v1\nkind: Fragment\n"
        "metadata: {name: platform}\nspec:\n  requirements: [boto3>=1.40]\n"
    }
    for number in range(count):
        team = f"team-{number // PER_TEAM:03d}"
        texts[f"teams/{team}/constraints.txt"] = "numpy<3\n"
        texts[path_of(number)] = text_of(number)
        if number % PER_INSTANCE == 0:
            name = f"instance-{number:05d}"
            texts[f"instances/{name}.yaml"] = instance(name, team)
    return texts


def commit(repo: Path, changed: dict[str, str], message: str = "a change") -> None:
    """Commit files to a bare repo, created if necessary; no work tree is written."""
    if not repo.exists():
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(repo)], check=True)
        parent = b""
    else:
        parent = b"from refs/heads/main^0\n"
    who = f"A. Author <author@example.com> {int(time.time())} +0000"
    text = [f"commit refs/heads/main\ncommitter {who}\ndata {len(message)}\n{message}\n".encode()]
    text.append(parent)
    for path, content in changed.items():
        data = content.encode()
        text.append(f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
    subprocess.run(
        ["git", "fast-import", "--quiet", "--force"],
        input=b"".join(text),
        cwd=repo,
        check=True,
        timeout=300,
    )


def settings(root: Path, **more: object) -> Settings:
    """Return the settings of a daemon below `root`."""
    return Settings(
        state_dir=root / "state",
        share=root / "share",
        secrets_dir=root / "secrets",
        git=GitSettings(url=str(root / "repo.git"), poll_interval=3600.0),
        local=LocalSettings(allow=("*",)),
        **more,  # type: ignore[arg-type]
    )


def build_id(number: int, age: int) -> str:
    """Return the id of a build; `age` 0 is the active one."""
    return f"{number:08x}{age:08x}"


def settle(root: Path, count: int, ages: int = 3) -> None:
    """Create the repo, records and a share with every instance active; nothing is built.

    Each environment with an instance has `ages` builds, the newest of them active.
    """
    commit(root / "repo.git", files(count))
    made = settings(root)
    (root / "state").mkdir(parents=True)
    definitions = Source(made.git, root / "reading", made.secrets_dir).poll()
    store = Store(made.database_url)
    store.migrate()
    lease = store.acquire("herd", 600.0)
    assert lease is not None
    now = time.time()
    change = decide(World(now, Records(), definitions)).change
    wiring = Wiring(made)
    share = wiring.share
    share.prepare()
    builds: list[BuildRecord] = []
    owners = {
        name: e
        for e in change.environments
        for wave in e.definition.rollout
        for name in wave.instances
    }
    instances = []
    for record in change.instances:
        owner = owners[record.name]
        digest, number = owner.definition.recipe.digest, int(record.name[-5:])
        for age in range(ages):
            recipe = digest if age == 0 else f"{number:032x}{age:032x}"
            builds.append(
                BuildRecord(
                    key=build_key(owner.name, recipe, RUNTIME.key),
                    environment=owner.name,
                    team=owner.team,
                    recipe_digest=recipe,
                    runtime_key=RUNTIME.key,
                    revision=owner.commit.revision,
                    phase=BuildPhase.READY,
                    created_at=now - 86400.0 * age,
                    phases=(("Queued", now - 86400.0 * age), ("Ready", now - 86400.0 * age + 9)),
                    build_id=build_id(number, age),
                    packages=tuple((f"package-{n}", f"1.{age}") for n in range(20)),
                )
            )
            place_build(share, build_id(number, age), owner.team)
        instances.append(
            replace(
                record,
                runtime=RUNTIME,
                fingerprint=wiring.driver(record.definition).fingerprint(record.definition),
                current=Deployment(
                    build_id(number, 0), digest, RUNTIME.key, record.definition.load_into
                ),
                previous=Deployment(build_id(number, 1), runtime=RUNTIME.key),
                active_since=now,
            )
        )
    store.write(lease, replace(change, instances=tuple(instances), builds=tuple(builds)))
    store.release(lease)
    store.close()
    wiring.store.close()


def place_build(share: Share, one: str, team: str, entries: tuple[str, ...] = ()) -> None:
    """Write a verified build to the share; not durably, which would take long."""
    folder = share.build_path(one)
    (folder / "verified").mkdir(parents=True)
    document = {"schema": 1, "build": one, "team": team, "entries": list(entries), "paths": []}
    (folder / "build.json").write_text(json.dumps(document))
    (folder / "verified" / f"{RUNTIME.key}.json").write_text("{}")
