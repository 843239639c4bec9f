"""Names of modules in Airflow's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.airflow.configured import MOST, layout_of, module_names, settings_in


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("acme.secrets.Backend", ("acme",)),
        ("backend = acme.secrets.Backend\nlogging_config_class=own.log.CONFIG", ("acme", "own")),
        ('[{"classpath": "acme_bundles.Git", "x": 1.5}]', ("acme_bundles",)),
        (
            "from rules import policy\nimport more\n  from  deep.inside import x",
            ("deep", "more", "rules"),
        ),
        ("/opt/airflow/dags", ()),
        ("LocalExecutor", ()),
        ("", ()),
    ],
)
def test_what_may_be_a_module_is_named(text: str, names: tuple[str, ...]) -> None:
    """A dotted name may be one, and what Python imports is one."""
    assert module_names([text]) == names


def test_comments_of_a_configuration_name_nothing(tmp_path: Path) -> None:
    """Airflow writes examples into its airflow.cfg."""
    (tmp_path / "airflow.cfg").write_text(
        "# backend = old.secrets.X\n  # y = z.a\nbackend = acme.X\n"
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "airflow_local_settings.py").write_text("import rules\n")
    assert module_names(settings_in(tmp_path)) == ("acme", "rules")
    assert settings_in(tmp_path / "nowhere") == []


def test_a_configuration_with_very_many_names_is_unknown() -> None:
    """They would all be recorded with each activation."""
    text = " ".join(f"m{number}.x" for number in range(MOST + 1))
    assert layout_of(["scheduler"], [text], runs_tasks=False).unknown != ""
    layout = layout_of(["scheduler"], [text.partition(" ")[2]], runs_tasks=False)
    assert (layout.unknown, len(layout.configured)) == ("", MOST)
