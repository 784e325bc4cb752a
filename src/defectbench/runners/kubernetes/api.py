"""A cluster's API: plain requests and plain dicts, because turning thousands of Jobs into objects is slow.

Refusals and failures become errors with our own messages and exit codes; what may pass is tried again.
"""

from __future__ import annotations

import json
import os
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import kubernetes
import urllib3
from kubernetes.config.config_exception import ConfigException

from defectbench.errors import ConfigurationError, DefectbenchError, NoRightsError, TryAgainError

Document = dict[str, Any]

_CONFIG: Any = kubernetes.config  # has no types

PAGE = 500
"""Objects in an answer to a list."""

_PASSING = frozenset({429, 500, 502, 503, 504})
_LONGEST_PAUSE = 10.0
_WATCH_FOR = 240
"""Seconds that a watch is asked to last; the server may end it at any time."""

_IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered: the HTTP status, and the object or the ``Status``."""

    status: int
    document: Document

    @property
    def message(self) -> str:
        """The server's message where it refused."""
        return str(self.document.get("message", "")) or f"HTTP {self.status}"


class GoneError(Exception):
    """The version that a list or a watch asked for is no longer kept (410): list again."""


@dataclass
class Cluster:
    """A namespace of a cluster. Thread-safe; made by :func:`connect`.

    Attributes:
        context: of the kubeconfig; ``in-cluster`` inside a pod.
        first_patience: seconds that the first answer is waited for, over several tries.
        patience: the same once the cluster has answered: its API server may be restarted meanwhile.
    """

    context: str
    namespace: str
    host: str
    pool: urllib3.PoolManager
    authorize: Callable[[], Mapping[str, str]]
    first_patience: float = 3.0
    patience: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    _answered: bool = field(default=False, init=False)

    def path(self, kind: str, *names: str) -> str:
        """Return the address of a kind's objects in the namespace: ``jobs``, ``pods``, ``secrets``...

        >>> cluster = Cluster("c", "team", "https://x", urllib3.PoolManager(), dict)
        >>> cluster.path("jobs", "a")
        '/apis/batch/v1/namespaces/team/jobs/a'
        """
        group = "/apis/batch/v1" if kind == "jobs" else "/api/v1"
        return "/".join((f"{group}/namespaces/{quote(self.namespace)}/{kind}", *map(quote, names)))

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: bytes | Document | None = None,
        allow: Sequence[int] = (),
    ) -> Answer:
        """Send a request and return the answer.

        A call that failed on the way is sent again, so a POST may find its own object (409).

        Args:
            allow: refusals that the caller wants to see; all others are raised.

        Raises:
            TryAgainError: out of reach, or still too busy after :attr:`patience` seconds.
            NoRightsError: 401, 403.
            ConfigurationError: everything else that the server refuses, and certificates that do not fit.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        url = self.host + path + (f"?{urlencode(query)}" if query else "")
        for pause in self._pauses():
            try:
                response = self.pool.request(
                    method, url, body=data, headers=self._headers(), retries=False, timeout=_timeout()
                )
            except urllib3.exceptions.HTTPError as error:
                trouble: DefectbenchError = self._unreachable(error)
                if isinstance(trouble, ConfigurationError):
                    raise trouble from error
                wanted = 0.0
            else:
                self._answered = True
                answer = Answer(response.status, _document(response.data))
                if answer.status not in _PASSING:
                    if answer.status < 400 or answer.status in allow:
                        return answer
                    raise self.refused(method, path, answer)
                trouble = TryAgainError(f"the cluster of context {self.context} is busy: {answer.message}")
                wanted = _retry_after(response.headers)
            if pause is None:
                raise trouble
            self.sleep(max(pause, wanted))
        raise AssertionError("the last pause is None")

    def version(self) -> str:
        """Return the cluster's version, such as v1.31.2."""
        return str(self.call("GET", "/version").document.get("gitVersion", ""))

    def pages(
        self, path: str, *, query: Mapping[str, object] | None = None, limit: int = PAGE
    ) -> Iterator[Answer]:
        """Yield a list page by page; ``metadata.resourceVersion`` of each is where a watch may begin.

        Raises:
            GoneError: the list grew too old between two pages: begin again.
        """
        more = ""
        while True:
            asked = {**(query or {}), "limit": limit, **({"continue": more} if more else {})}
            answer = self.call("GET", path, query=asked, allow=(410,))
            if answer.status == 410:
                raise GoneError(answer.message)
            yield answer
            more = answer.document.get("metadata", {}).get("continue", "")
            if not more:
                return

    def items(self, path: str, *, query: Mapping[str, object] | None = None) -> Iterator[Document]:
        """Yield the objects of a list, read in pages; begins again where the list grew too old."""
        seen: set[str] = set()
        while True:
            try:
                for answer in self.pages(path, query=query):
                    for item in answer.document.get("items", ()):
                        name = item["metadata"]["name"]
                        if name not in seen:
                            seen.add(name)
                            yield item
                return
            except GoneError:
                continue

    def watch(
        self, path: str, version: str, *, query: Mapping[str, object] | None = None
    ) -> Iterator[Document]:
        """Yield what happens after ``version``, bookmarks included, until the server ends the stream.

        Raises:
            GoneError: the version is no longer kept.
            TryAgainError: the connection broke; the last version seen is where to go on.
        """
        asked = {
            **(query or {}),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": _WATCH_FOR,
        }
        for line in self.lines(path, query=asked):
            event = _document(line)
            if event.get("type") == "ERROR":
                status = event.get("object", {})
                if status.get("code") == 410:
                    raise GoneError(str(status.get("message")))
                raise TryAgainError(f"the watch ended: {status.get('message')}")
            yield event

    def lines(self, path: str, *, query: Mapping[str, object] | None = None) -> Iterator[bytes]:
        """Yield the lines of an answer as they arrive: a watch, a log that is followed.

        Raises:
            GoneError: 410.
            TryAgainError: the connection broke, or the server is busy.
        """
        url = f"{self.host}{path}?{urlencode(query or {})}"
        timeout = urllib3.Timeout(connect=5.0, read=_WATCH_FOR + 30)
        try:
            response = self.pool.request(
                "GET", url, headers=self._headers(), retries=False, timeout=timeout, preload_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from error
        try:
            if response.status >= 400:
                answer = Answer(response.status, _document(response.read()))
                if answer.status == 410:
                    raise GoneError(answer.message)
                if answer.status in _PASSING:
                    raise TryAgainError(f"the cluster of context {self.context} is busy: {answer.message}")
                raise self.refused("GET", path, answer)
            yield from _split(response.stream(65536))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            # Not release_conn: what was not read of a stream must not be the next answer.
            response.close()

    def _headers(self) -> dict[str, str]:
        """Return the headers of a request, credentials included."""
        return {"Accept": "application/json", "Content-Type": "application/json", **self.authorize()}

    def _pauses(self) -> Iterator[float | None]:
        """Yield how long to wait after each try; None after the last."""
        patience = self.patience if self._answered else self.first_patience
        end, pause = time.monotonic() + patience, 0.25
        while time.monotonic() < end:
            # Many threads begin to wait at one moment: they must not all try again at one, too.
            yield pause * random.uniform(0.5, 1.5)
            pause = min(2 * pause, _LONGEST_PAUSE)
        yield None

    def _unreachable(self, error: Exception) -> DefectbenchError:
        """Return the error of a request that got no answer; a wrong certificate is not tried again."""
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ConfigurationError(
                f"the certificate of {self.host} does not fit context {self.context}: {cause}"
            )
        return TryAgainError(
            f"no cluster answers at {self.host} (context {self.context}): {_brief(error)}; "
            "start it or name another --kube-context, then run the same command again"
        )

    def refused(self, method: str, path: str, answer: Answer) -> DefectbenchError:
        """Return the error that a refusal is."""
        where = f"context {self.context}, namespace {self.namespace}"
        if answer.status == 401:
            return NoRightsError(f"the cluster does not know these credentials ({where}): log in again")
        if answer.status == 403:
            return NoRightsError(f"no rights ({where}): {answer.message}")
        details = answer.document.get("details", {})
        if answer.status == 404 and details.get("kind") == "namespaces":
            return unknown_namespace(self)
        return ConfigurationError(f"{method} {path} was refused ({where}): {answer.message}")


def unknown_namespace(cluster: Cluster) -> ConfigurationError:
    """Return the error that names the namespace which is not there."""
    return ConfigurationError(
        f"no namespace {cluster.namespace!r} in the cluster of context {cluster.context}; make it "
        f"(kubectl create namespace {cluster.namespace}) or name another with --namespace"
    )


def connect(context: str | None = None, namespace: str | None = None, *, connections: int = 16) -> Cluster:
    """Return the cluster that kubectl would talk to: KUBECONFIG, else ~/.kube/config, else the pod's own.

    Nothing is asked of it yet.

    Args:
        context: of the kubeconfig; None takes its current one.
        namespace: None takes the context's, else ``default``.
        connections: kept open between calls.

    Raises:
        TryAgainError: no cluster is configured.
        ConfigurationError: no such context, or a kubeconfig that cannot be used.
    """
    settings = kubernetes.client.Configuration()
    files = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    if not any(Path(file).expanduser().is_file() for file in files.split(os.pathsep) if file):
        return _connect_inside(settings, context, namespace, files, connections)
    try:
        contexts, current = _CONFIG.list_kube_config_contexts(files)
        chosen = _choose(contexts, current, context, files)
        _CONFIG.load_kube_config(files, chosen["name"], client_configuration=settings, persist_config=False)
    except ConfigurationError:
        raise
    except Exception as error:  # the client raises what its parts raise: YAML's, OSError, KeyError
        raise ConfigurationError(f"{files} cannot be used: {_brief(error)}") from error
    place = namespace or chosen.get("context", {}).get("namespace") or "default"
    return _cluster(chosen["name"], place, settings, connections)


def _connect_inside(
    settings: Any, context: str | None, namespace: str | None, files: str, connections: int
) -> Cluster:
    """Return the cluster that this pod runs in."""
    if context:
        raise ConfigurationError(f"no context {context!r}: there is no kubeconfig at {files}")
    try:
        _CONFIG.load_incluster_config(client_configuration=settings)
    except ConfigException:
        raise TryAgainError(
            f"no cluster is configured: no kubeconfig at {files} (KUBECONFIG names one), "
            "and this is no pod with a service account"
        ) from None
    own = _IN_POD.read_text().strip() if _IN_POD.is_file() else "default"
    return _cluster("in-cluster", namespace or own, settings, connections)


def _choose(
    contexts: Sequence[Mapping[str, Any]], current: Mapping[str, Any], wanted: str | None, files: str
) -> Mapping[str, Any]:
    """Return the context that is named, or the current one."""
    if wanted is None:
        return current
    for each in contexts:
        if each["name"] == wanted:
            return each
    names = ", ".join(sorted(str(each["name"]) for each in contexts))
    raise ConfigurationError(f"no context {wanted!r} in {files}; allowed: {names}")


def _cluster(context: str, namespace: str, settings: Any, connections: int) -> Cluster:
    """Return a cluster that sends its requests through the client's own pool of connections."""
    settings.connection_pool_maxsize = connections
    client = kubernetes.client.ApiClient(settings)
    return Cluster(
        context=context,
        namespace=namespace,
        host=str(settings.host).rstrip("/"),
        # The pool alone, with the kubeconfig's certificates and proxies: the client's objects are slow.
        pool=client.rest_client.pool_manager,
        authorize=lambda: _authorization(settings),
    )


def _authorization(settings: Any) -> dict[str, str]:
    """Return the headers that prove who we are, tokens renewed where they ran out."""
    return {
        each["key"]: each["value"]
        for each in settings.auth_settings().values()
        if each.get("in") == "header" and each.get("value")
    }


def _document(data: bytes) -> Document:
    """Return an answer's JSON; whatever else a proxy on the way sends becomes the message."""
    try:
        found = json.loads(data)
    except ValueError:
        return {"message": data[:200].decode(errors="replace").strip()}
    return found if isinstance(found, dict) else {"message": str(found)[:200]}


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield whole lines of a stream."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)
    if rest:
        yield rest


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds that the server asks us to stay away, a minute at most."""
    try:
        return min(60.0, float(headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _timeout() -> urllib3.Timeout:
    """Return how long a request may take."""
    return urllib3.Timeout(connect=5.0, read=60.0)


def _brief(error: Exception) -> str:
    """Return the first line of an error, without the addresses of objects that urllib3 prints."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.rpartition(">: ")[2] or text
