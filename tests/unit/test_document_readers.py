"""Documents of others are parsed by typed readers: every other parser is listed here, with why.

A new `json.loads`, `.json()` or the like is a failure until it is a reader of its own, or belongs
to one of the reasons below. An entry that is no longer needed is a failure too.
"""

from __future__ import annotations

import ast
from collections import Counter

from tests.harness.regexes import ROOT, sources

PARSERS = {
    ("json", "loads"),
    ("json", "load"),
    ("tomllib", "loads"),
    ("tomllib", "load"),
    ("yaml", "safe_load"),
    ("yaml", "load"),
    ("yaml", "safe_load_all"),
    ("pickle", "loads"),
    ("pickle", "load"),
    ("marshal", "loads"),
    ("zipfile", "ZipFile"),
    ("tarfile", "open"),
}

OURS = "written by the daemon itself, in its own cache, database or pipe"
SHAPE = "its shape is checked by hand beside it"
LOADER = "standard library only, as it runs in every process of an instance"
TYPED = "a model checks what it returns, right after"

ALLOWED = {
    "gitsource/git_worker.py": (Counter(load=1, open=1), OURS),
    "gitsource/projects.py": (Counter(loads=1), SHAPE),
    "gitsource/requirement_lines.py": (Counter(loads=1), SHAPE),
    "gitsource/source.py": (Counter(loads=1), OURS),
    "metrics/slackbot.py": (Counter(loads=1), OURS),
    "reconciler/api/v1.py": (Counter(loads=1), TYPED),
    "reconciler/builder/wheels/contents.py": (Counter(ZipFile=2), "runs in a worker process"),
    "reconciler/builder/verify/dag_pods/dag_parser.py": (Counter(loads=5), "runs in the pod"),
    "reconciler/builder/verify/dags.py": (Counter(loads=1), OURS),
    "reconciler/airflow/proof.py": (Counter(loads=1), SHAPE),
    "reconciler/builder/wheels/in_repo.py": (
        Counter(loads=2, ZipFile=1),
        "its own cache; the wheel and pyproject.toml in a worker process",
    ),
    "reconciler/builder/executor/kubernetes/worker.py": (Counter(loads=1), "runs in the pod"),
    "reconciler/builder/manifest.py": (Counter(loads=1), OURS),
    "reconciler/builder/executor/mounts.py": (Counter(loads=1), OURS),
    "reconciler/builder/resolve/placeholders.py": (Counter(ZipFile=1), OURS),
    "reconciler/builder/verify/worker.py": (Counter(load=1), OURS),
    "reconciler/demo/airflow.py": (Counter(json=3), "the demo's own Airflow"),
    "reconciler/demo/sink.py": (Counter(loads=1), "the demo's own messages"),
    "reconciler/documents.py": (Counter(loads=1), "the typed reader of TOML itself"),
    "reconciler/isolated_worker.py": (Counter(loads=1), OURS),
    "reconciler/isolation.py": (Counter(loads=1), OURS),
    "reconciler/share/loader/groundcrew_packs.py": (Counter(loads=1), LOADER),
    "reconciler/share/loader/sitecustomize.py": (Counter(loads=1), LOADER),
    "reconciler/share/packs.py": (Counter(loads=1), TYPED),
    "reconciler/store/codec.py": (Counter(loads=1), OURS),
    "reconciler/store/upgrade.py": (Counter(loads=1), OURS),
    "reconciler/store/store.py": (Counter(loads=1), OURS),
}


def _parsers(tree: ast.Module) -> Counter[str]:
    """Return how often a module calls a parser, by the parser's name."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    return Counter(
        call.func.attr
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and (
            (getattr(call.func.value, "id", ""), call.func.attr) in PARSERS
            or (call.func.attr == "json" and not call.args)
        )
    )


def test_documents_are_parsed_by_typed_readers() -> None:
    parsers = {
        str(path.relative_to(ROOT)): counts
        for path, tree in sources()
        if (counts := _parsers(tree))
    }
    allowed = {path: counts for path, (counts, _) in ALLOWED.items()}
    assert parsers == allowed, "use reconciler.documents.parse with a model"


def test_parsers_are_called_by_their_module() -> None:
    """A name imported from json, pickle or the like would not be found above."""
    modules = {module for module, _ in PARSERS}
    for path, tree in sources():
        names = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        aliases = [a for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
        assert modules.isdisjoint(name or "" for name in names), path
        assert not [a.name for a in aliases if a.name in modules and a.asname], path
