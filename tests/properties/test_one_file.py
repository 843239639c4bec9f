"""Whatever one file of the environments repo contains, every other file is read."""

from __future__ import annotations

import hashlib
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitsource.assemble import assemble
from gitsource.schema import schema
from gitsource.tree import Entry
from gitsource.worktree import is_pointer
from reconciler.core.definitions import Commit
from reconciler.core.reasons import Reason
from reconciler.store.codec import dump, parse
from tests.harness.git_repo import INSTANCE
from tests.harness.git_repo import NOWHERE as ENVIRONMENT

BAD = "teams/red/bad.yaml"
GOOD = {
    "instances/dev.yaml": INSTANCE.encode(),
    "teams/blue/good.yaml": ENVIRONMENT.replace("one", "good").encode(),
    "teams/red/constraints.txt": b"humanize<5\n",
}
KEYS = sorted({key for part in schema()["$defs"].values() for key in part.get("properties", ())})
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.from_regex(r"[a-z]{1,4}( ?[@;=<>~]=? ?\.?/?[a-z0-9./\[\]\0-]{0,12})?", fullmatch=True),
    st.from_regex(r"[0-9]{1,320}(s|m|h|d|Ki|Mi|Gi)?", fullmatch=True),
    st.sampled_from(["constraints.txt", ".//etc/x", "./", "https://[", "g:a:1", "0" * 64, "0755"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=5)), inner, max_size=4),
    ),
    max_leaves=12,
)
SPECS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5)
DOCUMENTS = st.builds(
    lambda kind, name, spec: {
        "apiVersion": "groundcrew/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    },
    st.one_of(st.just("Environment"), VALUES),
    st.one_of(st.just("bad"), LEAVES),
    st.one_of(SPECS, VALUES),
)
FILES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda t: t.encode(errors="surrogatepass")),
    st.one_of(DOCUMENTS, VALUES).map(lambda d: json.dumps(d).encode()),
    SPECS.map(lambda s: f"{ENVIRONMENT.replace('one', 'bad')}  checks: {json.dumps(s)}\n".encode()),
)


class Held:
    """Tree in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def entries(self) -> dict[str, Entry]:
        return {path: Entry(path, "100644", path, len(data)) for path, data in self.files.items()}

    def paths(self) -> list[str]:
        return sorted(self.files)

    def unlisted(self) -> tuple[str, ...]:
        return ()

    def read(self, entry: Entry) -> bytes:
        return self.files[entry.path]

    def is_pointer(self, entry: Entry) -> bool:
        return is_pointer(self.files[entry.path])

    def tree_id(self, path: str) -> str:
        path.encode()
        assert "\0" not in path, "no process takes that as an argument"
        return hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FILES)
def test_one_file_never_stops_another(text: bytes) -> None:
    """The good team is always read; the bad file is reported with its place, or is recordable."""
    definitions = assemble(Held({**GOOD, BAD: text}), Commit("r1"))
    assert definitions.environments["good"].recipe.requirements
    assert "dev" in definitions.instances
    assert all(f.place.file == BAD and f.reason != Reason.READ_FAILED for f in definitions.findings)
    assert all("\0" not in f"{f.object}{f.message}" for f in definitions.findings)
    assert definitions.findings or len(definitions.environments) == 2
    for environment in definitions.environments.values():
        assert parse(type(environment), dump(environment)) == environment
    for finding in definitions.findings:
        assert parse(type(finding), dump(finding)) == finding
