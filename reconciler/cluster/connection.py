"""Connection to one Kubernetes API server: credentials, time limits and typed errors.

The official client provides the configuration and the TLS connections. Documents stay plain JSON,
because the client's models use several times the memory and fail on fields that newer servers add.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from pydantic_core import from_json

from reconciler.core.definitions import IN_CLUSTER
from reconciler.core.errors import Away, GroundcrewError, Retryable, Stalled
from reconciler.core.reasons import Reason
from reconciler.documents import Malformed

log = logging.getLogger(__name__)

Json = dict[str, Any]

CONNECT = 5.0  # seconds until a connection must be established
DOWN = 5.0  # seconds for which no request is sent to a server that did not respond
BUSY = 1.0  # seconds to wait for a busy server that sends no Retry-After
POOL = 128  # connections kept open for the workers and the watches
ANSWER_LIMIT = 64 << 20  # bytes; a page has 500 objects
LINE_LIMIT = 4 << 20  # bytes of one line of a stream; no object is larger than 1.5 MiB


class Exists(Retryable):
    """The object already exists."""


class Expired(Retryable):
    """The resource version is too old to continue from (410): list again."""


class Cut(Away):
    """The connection was cut: the request may have been carried out."""


def _anything() -> None:
    """Allow the request, whether or not this daemon leads: for requests that only read."""


class Connection:
    """Connection to one server, safe to use from many threads.

    `timeout` is the limit of one request in seconds. All methods raise Away (ClusterUnreachable,
    ClusterBusy, ClusterDenied, Forbidden), Retryable (Conflict, QuotaExceeded) or Stalled
    (ContextUnknown, Refused).
    """

    def __init__(self, context: str | None, kubeconfig: Path | None, timeout: float) -> None:
        self.name = context or IN_CLUSTER
        self._context = context
        self._kubeconfig = kubeconfig
        self._timeout = timeout
        self._lock = threading.Lock()
        self._rest: RESTClientObject | None = None
        self._down_until = 0.0
        self._down_words = ""

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()

    def json(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: object = None,
        content_type: str = "application/json",
        check: Callable[[], None] = _anything,
    ) -> Json | None:
        """Return the document in the response, or None for 404. `check`: see `read`."""
        data = self.read(method, path, query, body, content_type, check)
        if data is None:
            return None
        try:
            return decoded(data, f"its answer to {method} {path}")
        except Malformed as error:
            raise self.unexpected(error) from error

    def read(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None = None,
        body: object = None,
        content_type: str = "application/json",
        check: Callable[[], None] = _anything,
    ) -> bytes | None:
        """Return the body of the response, or None for 404. Requests to a busy server are repeated.

        `check` is called each time before the request is sent, and may raise: while a busy server
        is waited for, another daemon may have become the leader.
        """
        deadline = time.monotonic() + self._timeout
        renewed = False
        while True:
            check()
            answer = self._send(method, path, query, body, content_type)
            try:
                data = self._read(answer, deadline)
            finally:
                answer.release_conn()
            if answer.status < 300:
                return data
            if answer.status == 404:
                return None
            if answer.status == 401 and not renewed:  # expired: its file may contain a newer token
                renewed = True
                self.close()
                continue
            error = self._error(method, path, answer, data)
            wait = error.after if isinstance(error, Retryable) else None
            if wait is None or time.monotonic() + wait > deadline:
                raise error
            time.sleep(wait)

    def stream(
        self,
        path: str,
        query: Mapping[str, object],
        silence: float,
        opened: Callable[[urllib3.BaseHTTPResponse], None] = lambda _: None,
        begins: float | None = None,
    ) -> Iterator[bytes]:
        """Yield the lines of a response as they arrive, until the server ends it.

        Raises Cut after `silence` seconds without data. `opened` receives the response, so that
        another thread can close it. `begins` is the time limit in seconds for the start of a
        response that may take longer than others.
        """
        answer = self._send("GET", path, query, None, "", begins)
        try:
            if answer.status == 401:
                self.close()  # so that the next request reads the credentials again
            if answer.status >= 300:
                data = self._read(answer, time.monotonic() + self._timeout)
                raise self._error("GET", path, answer, data)
            _allow_silence(answer, silence)
            opened(answer)
            pending = b""
            try:
                while chunk := answer.read1(1 << 16):
                    *lines, pending = (pending + chunk).split(b"\n")
                    yield from (line for line in lines if line)
                    if len(pending) > LINE_LIMIT:
                        raise self._unreachable(f"sends lines without end for {path}")
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Cut(
                    Reason.CLUSTER_UNREACHABLE, f"cluster {self.name}: {_why(error)}"
                ) from error
            if pending:
                yield pending
        finally:
            answer.close()

    # ---------------------------------------------------------------------------------- parts

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, object] | None,
        body: object,
        content_type: str,
        begins: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        if time.monotonic() < self._down_until:
            raise self._unreachable(self._down_words)
        rest = self._client()
        headers = {"Accept": "application/json", "User-Agent": "groundcrew"}
        token = rest.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        if body is not None:
            headers["Content-Type"] = content_type
        url = rest.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            answer = rest.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(
                    connect=min(CONNECT, self._timeout), read=begins or self._timeout
                ),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,  # no compression is requested, so nothing is decompressed
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            message = f"does not answer: {_why(error)}"
            if isinstance(error, urllib3.exceptions.ProtocolError):
                raise Cut(Reason.CLUSTER_UNREACHABLE, f"cluster {self.name} {message}") from error
            if begins and isinstance(error, urllib3.exceptions.ReadTimeoutError):
                raise self._unreachable(message) from error  # says nothing about other requests
            self._down_words, self._down_until = message, time.monotonic() + DOWN
            raise self._unreachable(message) from error
        return answer

    def _read(self, answer: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        parts, size = [], 0
        try:
            while part := answer.read1(1 << 20):
                parts.append(part)
                size += len(part)
                if size > ANSWER_LIMIT or time.monotonic() > deadline:
                    answer.close()
                    raise self._unreachable("answers too slowly or too much")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            answer.close()
            raise Cut(Reason.CLUSTER_UNREACHABLE, f"cluster {self.name}: {_why(error)}") from error
        return b"".join(parts)

    def _client(self) -> RESTClientObject:
        with self._lock:
            if self._rest is None:
                self._rest = RESTClientObject(self._configuration())
            return self._rest

    def _configuration(self) -> Configuration:
        configuration = Configuration()
        configuration.retries = False
        configuration.connection_pool_maxsize = POOL
        configuration.keep_alive = True  # so that a peer that vanished is detected
        inside = self._context is None and "KUBERNETES_SERVICE_HOST" in os.environ
        try:
            if inside:
                load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            else:
                load_kube_config(  # type: ignore[no-untyped-call]
                    str(self._kubeconfig) if self._kubeconfig else None,
                    self._context,
                    configuration,
                    persist_config=False,
                )
        except (ConfigException, OSError, ValueError) as error:
            raise Stalled(
                Reason.CONTEXT_UNKNOWN,
                f"no way to cluster {self.name}: {error}; name a context of the kubeconfig that "
                f"the setting kubernetes.kubeconfig points to",
            ) from error
        return configuration

    def _error(
        self, method: str, path: str, answer: urllib3.BaseHTTPResponse, data: bytes
    ) -> GroundcrewError:
        said: Json = {}
        with suppress(Malformed):
            said = decoded(data, "the error")
        message = str(said.get("message") or answer.reason or answer.status)[:500]
        doing = f"cluster {self.name}: {method} {path}"
        match answer.status:
            case 401:
                return Away(
                    Reason.CLUSTER_DENIED, f"cluster {self.name} refuses the daemon's credentials"
                )
            case 403 if "exceeded quota" in message:
                return Retryable(Reason.QUOTA_EXCEEDED, f"cluster {self.name}: {message}")
            case 403:
                return Away(
                    Reason.FORBIDDEN,
                    f"cluster {self.name}: {message}; the Helm chart's Role for the namespace "
                    f"grants it",
                )
            case 409 if said.get("reason") == "AlreadyExists":
                return Exists(Reason.ALREADY_EXISTS, f"{doing}: {message}")
            case 409:
                return Retryable(Reason.CONFLICT, f"{doing}: {message}")
            case 410:
                return Expired(Reason.EXPIRED, f"{doing}: {message}")
            case 429:
                return Away(Reason.CLUSTER_BUSY, f"{doing}: {message}", after=_retry_after(answer))
            case status if status >= 500:
                asked = "Retry-After" in answer.headers
                wait = _retry_after(answer) if asked else None
                return Away(Reason.CLUSTER_UNREACHABLE, f"{doing}: {message}", after=wait)
            case _:
                return Stalled(Reason.REFUSED, f"{doing}: {message}")

    def unexpected(self, error: Malformed) -> Away:
        """Return the error for an answer that does not have the shape it must have."""
        return Away(Reason.CLUSTER_UNEXPECTED, f"cluster {self.name}: {error}")

    def _unreachable(self, words: str) -> Away:
        return Away(Reason.CLUSTER_UNREACHABLE, f"cluster {self.name} {words}")


def decoded(data: bytes, what: str) -> Json:
    """Return the JSON object in a response. Raises Malformed; nesting is bounded."""
    try:
        document = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise Malformed(f"{what} is not JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise Malformed(f"{what} is not an object")
    return document


def _allow_silence(answer: urllib3.BaseHTTPResponse, seconds: float) -> None:
    """Let a response that began in time be silent for longer from now on."""
    connection = answer.connection
    sock = getattr(connection, "sock", None)
    if sock is not None:
        sock.settimeout(seconds)


def _retry_after(answer: urllib3.BaseHTTPResponse) -> float:
    try:
        return max(0.0, float(answer.headers.get("Retry-After", BUSY)))
    except ValueError:
        return BUSY


def _why(error: BaseException) -> str:
    """Return the last part of a connection error: the other parts name pools and objects."""
    text = " ".join(str(error).split())
    return text.rsplit(": ", 1)[-1].strip("()'\" ")[:200] or type(error).__name__
