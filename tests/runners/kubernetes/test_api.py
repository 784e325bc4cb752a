"""The API's client against a server over HTTP: what is tried again, said, listed and watched."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from defectbench.errors import ConfigurationError, DefectbenchError, NoRightsError, TryAgainError
from fake_kubernetes import NAMESPACE, FakeApi, Fault, fake_api, job
from waiting import wait_until

pytest.importorskip("kubernetes", reason="no kubernetes client here; run: uv sync --extra kubernetes")

from defectbench.runners.kubernetes.api import Cluster, connect
from defectbench.runners.kubernetes.informer import Informer
from defectbench.runners.kubernetes.jobs import OURS


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as server:
        yield server


@pytest.fixture
def cluster(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
    return connect()


def test_context_and_namespace_come_from_the_kubeconfig_or_the_caller(cluster: Cluster) -> None:
    assert (cluster.context, cluster.namespace) == ("fake", NAMESPACE)
    assert connect("dead", "mine").namespace == "mine"


def test_a_context_that_is_not_there_is_named_with_those_that_are(cluster: Cluster) -> None:
    with pytest.raises(ConfigurationError, match=r"no context 'kind' in .*; allowed: dead, fake"):
        connect("kind")


def test_a_broken_kubeconfig_is_a_matter_of_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in (
        "{",
        "[]",
        "apiVersion: v1\n",
        "current-context: x\ncontexts: []\nclusters: []\nusers: []\n",
    ):
        (tmp_path / "config").write_text(text)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        with pytest.raises(ConfigurationError, match="cannot be used"):
            connect()


def test_without_any_configuration_there_is_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(TryAgainError, match="no cluster is configured"):
        connect()


def test_a_server_that_nobody_runs_is_one_sentence(cluster: Cluster) -> None:
    dead = connect("dead")
    dead.first_patience = 0.0
    with pytest.raises(
        TryAgainError, match=r"^no cluster answers at http://127.0.0.1:1 \(context dead\)"
    ) as caught:
        dead.call("GET", dead.path("jobs"))
    assert "object at 0x" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, NoRightsError), (403, NoRightsError), (400, ConfigurationError), (422, ConfigurationError)],
)
def test_refusals_have_their_errors(
    api: FakeApi, cluster: Cluster, status: int, error: type[DefectbenchError]
) -> None:
    api.faults.append(Fault(status))
    with pytest.raises(error):
        cluster.call("GET", cluster.path("jobs"))
    assert len(api.requests) == 1


def test_a_busy_server_is_asked_again_when_it_says(api: FakeApi, cluster: Cluster) -> None:
    pauses: list[float] = []
    cluster.sleep = pauses.append
    api.faults.append(Fault(429, times=2, headers={"Retry-After": "7"}))
    api.faults.append(Fault(503, times=1))
    api.faults.append(Fault(0, times=1))
    assert cluster.call("GET", cluster.path("jobs")).status == 200
    assert pauses[:2] == [7.0, 7.0]
    assert len(pauses) == 4
    assert len(api.requests) == 5


def test_a_server_that_stays_busy_ends_with_try_again(api: FakeApi, cluster: Cluster) -> None:
    cluster.first_patience = 0.3
    api.faults.append(Fault(503, times=99, message="overloaded"))
    with pytest.raises(TryAgainError, match="busy: overloaded"):
        cluster.call("GET", cluster.path("jobs"))


def test_a_list_is_read_in_pages(api: FakeApi, cluster: Cluster) -> None:
    for number in range(7):
        api.put("jobs", job(f"j{number}"))
    pages = list(cluster.pages(cluster.path("jobs"), limit=3))
    assert [len(page.document["items"]) for page in pages] == [3, 3, 1]


def test_a_list_that_grew_too_old_between_two_pages_begins_again(api: FakeApi, cluster: Cluster) -> None:
    for number in range(501):
        api.put("jobs", job(f"j{number}"))
    api.faults.append(Fault(410, times=1, part="continue="))
    names = [each["metadata"]["name"] for each in cluster.items(cluster.path("jobs"))]
    assert sorted(names) == sorted({f"j{number}" for number in range(501)})


def names(informer: Informer) -> set[str]:
    return {each["metadata"]["name"] for each in informer.objects()}


def watched(api: FakeApi, times: int) -> bool:
    """Whether so many watches were asked for."""
    return api.count("GET", "watch=") >= times


def test_a_mirror_follows_what_is_made_changed_and_removed(api: FakeApi, cluster: Cluster) -> None:
    api.put("jobs", job("a"))
    with Informer(cluster, "jobs", OURS) as informer:
        assert names(informer) == {"a"}
        api.put("jobs", job("b"))
        wait_until(lambda: names(informer) == {"a", "b"})
        api.change("jobs", "b", status={"active": 1})
        wait_until(lambda: any(each.get("status") for each in informer.objects()))
        api.remove("jobs", "a")
        wait_until(lambda: names(informer) == {"b"})
        assert informer.lists == 1


def test_a_mirror_goes_on_after_a_disconnect_without_listing_again(api: FakeApi, cluster: Cluster) -> None:
    with Informer(cluster, "jobs", OURS) as informer:
        for number in range(3):
            wait_until(partial(watched, api, number + 1))
            api.hang_up()
            api.put("jobs", job(f"j{number}"))
        wait_until(lambda: names(informer) == {"j0", "j1", "j2"})
        assert informer.lists == 1


def test_a_mirror_lists_again_when_its_version_is_gone(api: FakeApi, cluster: Cluster) -> None:
    api.put("jobs", job("old"))
    with Informer(cluster, "jobs", OURS) as informer:
        wait_until(lambda: api.count("GET", "watch=") == 1)
        # Both happen while nobody listens: only a new list can show that the old Job went away.
        with api.changed:
            api.hang_up()
            api.remove("jobs", "old")
            api.put("jobs", job("new"))
            api.forget()
        wait_until(lambda: names(informer) == {"new"})
        assert informer.lists == 2


def test_a_mirror_moves_on_with_bookmarks(api: FakeApi, cluster: Cluster) -> None:
    api.bookmarks = True
    with Informer(cluster, "jobs", OURS) as informer:
        api.put("pods", job("unseen"))
        wait_until(lambda: informer._version == str(api.version))
        # What is older than the bookmark is forgotten, and nothing has to be listed again.
        api.oldest = api.version
        api.hang_up()
        api.put("jobs", job("a"))
        wait_until(lambda: names(informer) == {"a"})
        assert informer.lists == 1


def test_a_mirror_says_its_trouble_and_gets_over_it(api: FakeApi, cluster: Cluster) -> None:
    api.put("jobs", job("a"))
    with Informer(cluster, "jobs", OURS) as informer:
        wait_until(lambda: api.count("GET", "watch=") == 1)
        api.faults.append(Fault(0, times=3, part="watch="))
        api.hang_up()
        wait_until(lambda: informer.trouble)
        assert names(informer) == {"a"}
        api.put("jobs", job("b"))
        wait_until(lambda: names(informer) == {"a", "b"})
        wait_until(lambda: not informer.trouble)


def test_a_mirror_ends_when_the_rights_are_taken_away(api: FakeApi, cluster: Cluster) -> None:
    with Informer(cluster, "jobs", OURS) as informer:
        wait_until(lambda: api.count("GET", "watch=") == 1)
        api.faults.append(Fault(403, times=99))
        api.hang_up()
        wait_until(informer.changed.is_set)

        def refused() -> bool:
            try:
                informer.objects()
            except NoRightsError:
                return True
            return False

        wait_until(refused)
