"""Judgement of DAGs that were parsed in a pod, and the report about them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.builder.verify.dag_pods import dag_parser
from reconciler.builder.verify.dag_pods.dag_parser import PREFIX, folders_of, packed, read_settings
from reconciler.builder.verify.dag_pods.judgement import Judgement, judge
from reconciler.builder.verify.dag_pods.report import LIMIT, Outcome, Report, Row, read_report
from reconciler.documents import Malformed

GONE = "Traceback\n  File 'daily.py'\nImportError: cannot import name 'old' from 'acme'"
NEEDS = "Traceback\nKeyError: 'Variable region does not exist'"
VALUE = "Traceback\nValueError: a new check"


def document(**more: Any) -> dict[str, Any]:
    """Return a report as the pod makes it, before it is packed."""
    return {
        "folders": ["/opt/airflow/dags"],
        "unseen": [],
        "files": ["daily.py"],
        "late": 0,
        "mark": "m",
        "commit": "",
        "rows": [],
        "failed": "",
        "reference_failed": "",
        **more,
    }


def report(candidate: tuple[str, str], reference: tuple[str, str] | None, **more: Any) -> Report:
    """Return a report with one row."""
    other = Outcome(kind=reference[0], error=reference[1]) if reference else None  # type: ignore[arg-type]
    one = Outcome(kind=candidate[0], error=candidate[1])  # type: ignore[arg-type]
    row = Row(file="daily.py", candidate=one, reference=other)
    return Report.model_validate({**document(), "count": 1, "more": 0, "rows": [row], **more})


def judged(candidate: tuple[str, str], reference: tuple[str, str] | None) -> Judgement:
    """Return the judgement of one row."""
    return judge(report(candidate, reference), "red-dev", "the claim", "with the active build")


OK = ("ok", "")


@pytest.mark.parametrize(
    ("candidate", "reference", "words"),
    [
        (("error", GONE), OK, "cannot import name 'old'"),
        (("error", VALUE), OK, "a new check"),
        (("error", GONE), ("error", NEEDS), "gets as far as its variables"),
        (("error", GONE), ("forks", ""), "parses with the active build"),
        (("hung", ""), OK, "does not end with this build"),
        (("died", "signal 11"), OK, "ends its process with this build"),
    ],
)
def test_what_works_without_the_build_counts(
    candidate: tuple[str, str], reference: tuple[str, str], words: str
) -> None:
    """It parses with the instance's current build, or gets up to what the pod cannot have."""
    ((file, said, _),) = judged(candidate, reference).against
    assert file == "daily.py"
    assert words in said


@pytest.mark.parametrize(
    ("candidate", "reference", "why"),
    [
        (("error", GONE), ("error", GONE), None),
        (("error", GONE), ("hung", ""), None),
        (("error", NEEDS), ("error", NEEDS), "needs a variable"),
        (("error", NEEDS), OK, "needs a variable"),
        (("error", VALUE), ("error", NEEDS), None),
        (("hung", ""), ("hung", ""), "does not end"),
        (("died", "x"), ("died", "x"), "ends its own process"),
        (("forks", ""), None, "leaves processes"),
    ],
)
def test_what_fails_without_it_too_does_not(
    candidate: tuple[str, str], reference: tuple[str, str] | None, why: str | None
) -> None:
    """It is named: as failing already, or with the reason why it cannot be judged."""
    judgement = judged(candidate, reference)
    assert not judgement.against
    if why is None:
        assert judgement.check.failing == ("daily.py",)
    else:
        ((file, said),) = judgement.check.unjudged
        assert file == "daily.py"
        assert why in said


def test_an_airflow_that_starts_without_the_build_only_counts() -> None:
    """It starts in neither case: nothing was seen, and no build is to blame."""
    broken = {"failed": "Traceback\nImportError: x", "rows": []}
    judgement = judge(report(OK, None, **broken), "red-dev", "the claim", "on the base alone")
    assert "Airflow does not start with this build" in judgement.against[0][1]
    broken["reference_failed"] = "ImportError: x"
    judgement = judge(report(OK, None, **broken), "red-dev", "the claim", "on the base alone")
    assert not judgement.against
    assert judgement.check.seen == 0
    assert "Airflow does not start in the pod: ImportError: x" in judgement.check.unseen


def test_files_that_there_was_no_time_for_are_told() -> None:
    """They count as unseen, and the message has the setting."""
    judgement = judge(report(OK, None, rows=[], count=9, late=4), "red-dev", "the claim", "")
    assert judgement.check.seen == 5
    assert "4 files" in judgement.check.unseen
    assert "verify_timeout" in judgement.check.unseen


def test_a_report_comes_back_whole() -> None:
    """Its lines are read from a log that has other lines between them."""
    rows = [
        {"file": f"{n}.py", "candidate": {"kind": "error", "error": "x" * 5000}, "reference": None}
        for n in range(300)
    ]
    lines = packed(document(rows=rows))
    report_read = read_report(["a line", *lines[:1], "another", *lines[1:]])
    assert (len(report_read.rows), report_read.more) == (200, 100)
    assert max(map(len, lines)) < 2100


def test_a_report_that_others_wrote_is_refused() -> None:
    """It is cut, changed, of another shape, or huge after unpacking."""

    def lines_of(text: bytes) -> list[str]:
        data = base64.b64encode(gzip.compress(text)).decode()
        return [f"{PREFIX} 0 {data}", f"{PREFIX} end {hashlib.sha256(data.encode()).hexdigest()}"]

    whole = packed(document())
    for lines in (
        [],
        whole[:-1],
        [whole[0][:-3], whole[1]],
        [f"{PREFIX} 0 ???", f"{PREFIX} end 0"],
        lines_of(b"[]"),
        lines_of(json.dumps({"rows": 1}).encode()),
        lines_of(b" " * (LIMIT + 1)),
    ):
        with pytest.raises(Malformed):
            read_report(lines)


CONFIG = """
[core]
dags_folder = /opt/airflow/dags/repo/%s/team
fernet_key = hunter2
[database]
sql_alchemy_conn = postgresql://airflow:hunter2@db/airflow
[dag_processor]
dag_bundle_config_list = [{"name": "dags-folder", "kwargs": {},
    "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle"}]
"""


def test_few_options_of_the_configuration_are_copied(tmp_path: Path) -> None:
    """Only the places of DAGs are, whatever the format of the file."""
    (tmp_path / "airflow.cfg").write_text(CONFIG)
    options = read_settings(str(tmp_path / "airflow.cfg"))
    assert options.keys() == {"dags_folder", "dag_bundle_config_list"}
    assert "hunter2" not in json.dumps(options)
    (tmp_path / "airflow.cfg").write_text("no [section\n\0")
    assert read_settings(str(tmp_path / "airflow.cfg")) == {}
    assert read_settings(str(tmp_path / "nowhere")) == {}


def test_local_bundles_are_parsed_and_others_are_told() -> None:
    """A bundle that Airflow fetches with a connection is not seen, and is named."""
    bundles = [
        {"name": "own", "classpath": dag_parser.LOCAL_BUNDLE, "kwargs": {"path": "/dags/own"}},
        {"name": "folder", "classpath": dag_parser.LOCAL_BUNDLE, "kwargs": {}},
        {"name": "far", "classpath": "airflow.providers.git.bundles.git.GitDagBundle"},
    ]
    request = {"home": "/opt/airflow", "folder": "", "airflow": "3.2.2"}
    settings = {"dag_bundle_config_list": json.dumps(bundles)}
    folders, unseen = folders_of(request, settings)
    assert folders == [("own", "/dags/own"), ("folder", "/opt/airflow/dags")]
    (message,) = unseen
    assert "far (GitDagBundle)" in message
    assert folders_of({**request, "airflow": "2.11.2"}, settings) == (
        [("", "/opt/airflow/dags")],
        [],
    )
    folders, unseen = folders_of(request, {"dag_bundle_config_list": "{"})
    assert unseen
