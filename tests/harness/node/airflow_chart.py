"""Stand-in for the official chart: a release's documents, and the values that connect it.

The official one is in no package registry. As in that, the top-level values `volumes`,
`volumeMounts` and `env` reach all components and the template of the pods of tasks.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from tests.harness.node.airflow_release import AirflowRelease

VERSION = "1.22.0"
TEMPLATE = """\
{{- define "extend" }}
{{- $pod := index . 0 }}
{{- $values := index . 1 }}
{{- $_ := set $pod "volumes" (concat $pod.volumes $values.volumes) }}
{{- range $container := $pod.containers }}
{{- $_ := set $container "volumeMounts" (concat $container.volumeMounts $values.volumeMounts) }}
{{- $_ := set $container "env" (concat $container.env $values.env) }}
{{- end }}
{{- end }}
{{- range $document := (.Files.Get "release.json" | fromJsonArray) }}
{{- if eq $document.kind "ConfigMap" }}
{{- $template := get $document.data "pod_template_file.yaml" | fromYaml }}
{{- include "extend" (list $template.spec $.Values) }}
{{- $_ := set $document.data "pod_template_file.yaml" (toYaml $template) }}
{{- else if $document.spec.template }}
{{- include "extend" (list $document.spec.template.spec $.Values) }}
{{- end }}
---
{{ toJson $document }}
{{- end }}
"""


@contextmanager
def chart_repository(
    folder: Path, release: AirflowRelease, run: Callable[[str], object]
) -> Iterator[str]:
    """Serve a repository with the chart of a release; yield its URL. `run` is a shell."""
    _write_chart(folder / "airflow", release)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        run(f"cd {folder} && helm package airflow && helm repo index . --url {url}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield url
        finally:
            server.shutdown()


def _write_chart(folder: Path, release: AirflowRelease) -> None:
    """Write the chart of a release that is not connected yet, whose database is set up."""
    (folder / "templates").mkdir(parents=True)
    chart = {"apiVersion": "v2", "name": "airflow", "version": VERSION}
    (folder / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (folder / "values.yaml").write_text("volumes: []\nvolumeMounts: []\nenv: []\n")
    documents = [release.config(), *release.components()]
    (folder / "release.json").write_text(json.dumps(documents))
    (folder / "templates" / "release.yaml").write_text(TEMPLATE)
