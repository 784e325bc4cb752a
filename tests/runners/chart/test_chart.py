"""The chart: what it renders, with either Helm, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from chart_cases import CASES, EXTRAS, GOLDEN, URL, job, render, sweep, values
from defectbench.errors import PERMANENT, ConfigurationError, ExitCode, SweepError
from defectbench.execution.events import thread_variables, worker_command
from defectbench.execution.home import JOB_VARIABLE
from defectbench.records.sweep_record import Narrowing
from defectbench.runners.chart import chart, helm
from defectbench.runners.chart.documents import Reader
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import Resources
from fakes import put_category
from parts import ROOT, find_helm

CHART = ROOT / "charts" / "defectbench"
Manifest = dict[str, Any]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> str:
    """The helm program, which renders."""
    found = find_helm()
    monkeypatch.setenv("DEFECTBENCH_HELM", found)
    return found


@pytest.fixture
def no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEFECTBENCH_HELM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture(params=["program", "binding"])
def renderer(request: pytest.FixtureRequest) -> str:
    """The test runs with the helm program, then with the Python binding."""
    if request.param == "program":
        request.getfixturevalue("program")
    else:
        pytest.importorskip("helm_python", reason="no helm binding here; run: make sync (x86_64 Linux only)")
        request.getfixturevalue("no_program")
    return str(request.param)


def one(given: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    """The Job of one entry."""
    (manifest,) = chart.render(values([job(**changes)], given or {}))
    return manifest


def pod_of(manifest: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def worker_of(manifest: Manifest) -> dict[str, Any]:
    (container,) = pod_of(manifest)["containers"]
    found: dict[str, Any] = container
    return found


def variables(manifest: Manifest) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in worker_of(manifest)["env"]}


@pytest.mark.parametrize("case", CASES)
def test_chart_renders_the_golden_manifests(renderer: str, case: str) -> None:
    golden = (GOLDEN / f"{case}.yaml").read_text()
    assert render(case) == golden, "if this is wanted: python tests/chart_cases.py"


def test_golden_files_are_those_of_the_cases() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_every_key_is_one_that_kubernetes_knows(case: str) -> None:
    client = pytest.importorskip("kubernetes.client", reason="no kubernetes client here; run: make sync")
    for manifest in yaml.safe_load_all((GOLDEN / f"{case}.yaml").read_text()):
        api = client.ApiClient()
        read = api.deserialize(json.dumps(manifest), "V1Job", "application/json")
        assert api.sanitize_for_serialization(read) == manifest


@pytest.mark.parametrize("words", [(), ("--values", "-")], ids=["defaults", "extras"])
def test_helm_lint_finds_nothing(program: str, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program, "lint", "--strict", str(CHART), *words],
        input=json.dumps(CASES["all_extras"]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 chart(s) failed" in done.stdout
    assert not re.search("WARNING|ERROR", done.stdout)


def test_chart_has_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    document = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert document["version"] == document["appVersion"] == project["project"]["version"]


def test_wheel_holds_the_chart_where_it_is_looked_for() -> None:
    assert chart.find_chart() == CHART
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"charts/defectbench": "defectbench/charts/defectbench"}


def test_failure_policy_is_the_table_of_exit_codes(renderer: str) -> None:
    disruption, elsewhere, permanent = one()["spec"]["podFailurePolicy"]["rules"]
    assert disruption["action"] == elsewhere["action"] == "Ignore"
    assert disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert elsewhere["onExitCodes"]["values"] == [ExitCode.STORE_AWAY, ExitCode.STOPPED]
    assert permanent["action"] == "FailJob"
    assert permanent["onExitCodes"]["values"] == sorted(PERMANENT)
    names = {rule["onExitCodes"]["containerName"] for rule in (elsewhere, permanent)}
    assert names == {worker_of(one())["name"]} == {chart.CONTAINER}


def test_container_runs_the_command_of_every_runner(renderer: str) -> None:
    manifest = one(cells=3)
    cells = [f"{number:020x}" for number in range(3)]
    assert worker_of(manifest)["args"] == worker_command(URL, cells)
    assert chart.cells_of(manifest) == tuple(cells)
    assert "command" not in worker_of(manifest), "the image's entrypoint is the command"


def test_threads_of_the_sweep_are_variables_of_the_pod(renderer: str) -> None:
    assert thread_variables(4).items() <= variables(one()).items()


def test_a_pod_tells_its_job_and_is_asked_whether_it_lives(renderer: str) -> None:
    worker = worker_of(one())
    told = {each["name"]: each for each in worker["env"]}
    label = "metadata.labels['batch.kubernetes.io/controller-uid']"
    assert told[JOB_VARIABLE]["valueFrom"] == {"fieldRef": {"fieldPath": label}}
    assert told["DEFECTBENCH_ALIVE_FILE"]["value"] == "/tmp/alive"
    # Later than the worker would end itself: that leaves a log.
    assert "find /tmp/alive -mmin -35" in worker["livenessProbe"]["exec"]["command"][-1]
    assert "livenessProbe" not in worker_of(one({"stuckSeconds": 0}))


def test_rotated_credentials_reach_a_running_pod_by_a_mounted_file(renderer: str) -> None:
    manifest = one({"store": {"credentialsKey": "aws"}})
    [volume] = [each for each in manifest["spec"]["template"]["spec"]["volumes"] if "secret" in each]
    assert volume["secret"] == {"secretName": "defectbench-s3", "items": [{"key": "aws", "path": "aws"}]}
    [mount] = [each for each in worker_of(manifest)["volumeMounts"] if each["name"] == volume["name"]]
    assert variables(manifest)["AWS_SHARED_CREDENTIALS_FILE"] == f"{mount['mountPath']}/aws"
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & {
        each["name"] for each in worker_of(manifest)["env"]
    }
    assert chart.secrets_of(manifest) == ("defectbench-s3",)


def test_gpu_0_asks_for_none(renderer: str) -> None:
    resources = worker_of(one())["resources"]
    assert not any("gpu" in name for part in resources.values() for name in part)
    resources = worker_of(one(resources=Resources(gpu=2, cpu=0.5)))["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "2"
    assert resources["requests"]["cpu"] == "0.5"


def test_shared_memory_is_in_memory_and_below_its_limit(renderer: str) -> None:
    manifest = one(resources=Resources(memory="4Gi", shm="1Gi"))
    (shm,) = [volume for volume in pod_of(manifest)["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
    assert {"name": "shm", "mountPath": "/dev/shm"} in worker_of(manifest)["volumeMounts"]
    assert worker_of(manifest)["resources"]["limits"]["memory"] == "4Gi"


def test_all_that_is_written_lies_on_a_volume(renderer: str) -> None:
    manifest = one()
    mounts = {mount["mountPath"] for mount in worker_of(manifest)["volumeMounts"]}
    places = {name: value for name, value in variables(manifest).items() if str(value).startswith("/")}
    assert {"HOME", "HF_HOME", "TORCH_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR", "TMPDIR"} <= places.keys()
    assert all(f"/{place.split('/')[1]}" in mounts for place in places.values())
    assert "ephemeral-storage" in worker_of(manifest)["resources"]["requests"]
    assert int(variables(manifest)["DEFECTBENCH_CACHE_BYTES"]) == 20 * 2**30


@pytest.mark.parametrize("case", CASES)
def test_pods_are_restricted(case: str) -> None:
    for manifest in yaml.safe_load_all((GOLDEN / f"{case}.yaml").read_text()):
        pod, worker = pod_of(manifest), worker_of(manifest)
        assert pod["restartPolicy"] == "Never"
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"].get("runAsUser") != 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert worker["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "suspend" not in manifest["spec"], "Kueue's, never ours"


def test_claims_belong_to_the_group_and_are_chowned_once(renderer: str) -> None:
    claim = {"persistentVolumeClaim": {"claimName": "bench"}}
    for extra in (
        {"cache": {"volume": claim}},
        {"extraVolumes": [{"name": "more", **claim}]},
    ):
        security = pod_of(one(extra))["securityContext"]
        assert (security["fsGroup"], security["fsGroupChangePolicy"]) == (10001, "OnRootMismatch")
    assert "fsGroup" not in pod_of(one())["securityContext"]


def test_directory_store_on_a_volume_is_where_it_is_mounted(renderer: str) -> None:
    given = {"store": {"volume": {"persistentVolumeClaim": {"claimName": "bench"}}, "mountPath": "/data"}}
    (manifest,) = chart.render(values([job()], given, "/mnt/bench"))
    assert worker_of(manifest)["args"][:3] == ["job", "--store", "/data"]
    assert {"name": "store", "mountPath": "/data"} in worker_of(manifest)["volumeMounts"]
    assert not any(name.startswith("AWS_") for name in variables(manifest))
    (manifest,) = chart.render(values([job()], given))
    assert worker_of(manifest)["args"][:3] == ["job", "--store", URL], "an S3 store needs no volume"
    assert not any(mount["name"] == "store" for mount in worker_of(manifest)["volumeMounts"])


def test_credentials_come_from_a_secret_that_is_there(renderer: str) -> None:
    manifest = one({"tracker": {"uri": "http://mlflow:5000", "secret": "mlflow"}})
    assert chart.secrets_of(manifest) == ("defectbench-s3", "mlflow")
    named = {"secretKeyRef": {"name": "defectbench-s3", "key": "AWS_SECRET_ACCESS_KEY"}}
    assert variables(manifest)["AWS_SECRET_ACCESS_KEY"] == named
    assert chart.secrets_of(one({"store": {"secret": ""}})) == ()
    assert chart.secrets_of(one({"extraEnvFrom": [{"secretRef": {"name": "more"}}]}))[1:] == ("more",)


def test_addresses_of_the_caller_are_not_those_of_pods(
    renderer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:7070")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    found = variables(one())
    assert not {"AWS_ENDPOINT_URL_S3", "MLFLOW_TRACKING_URI"} & found.keys()
    found = variables(one({"store": {"endpoint": "http://s3:1"}, "tracker": {"uri": "http://mlflow:2"}}))
    assert (found["AWS_ENDPOINT_URL_S3"], found["MLFLOW_TRACKING_URI"]) == ("http://s3:1", "http://mlflow:2")


def test_users_helm_settings_decide_nothing(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = one()
    monkeypatch.setenv("HELM_NAMESPACE", "elsewhere")
    monkeypatch.setenv("HELM_DEBUG", "true")
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert one() == plain


def test_digest_is_of_the_manifest_whatever_its_namespace(renderer: str) -> None:
    (here,) = chart.render(values([job()]))
    (there,) = chart.render(values([job()]), "elsewhere")
    assert "namespace" not in here["metadata"]
    assert there["metadata"]["namespace"] == "elsewhere"
    assert chart.digest_of(here) == chart.digest_of(there) == chart.digest(here)
    assert chart.digest_of(one({"image": {"tag": "2"}})) != chart.digest_of(here)


@pytest.mark.parametrize("namespace", ["", "Factory", "a_b", "-a", "a" * 64, "a/b", "--set"])
def test_namespace_that_cannot_be_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match="expected 1 to 63 small letters"):
        chart.render(values([job()]), namespace)


def test_no_jobs_render_nothing(renderer: str) -> None:
    assert list(chart.render(values([]))) == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({"imgae": {}}, "values: unknown key 'imgae'; did you mean 'image'?"),
    ({"image": {"tga": "1"}}, "values.image: unknown key 'tga'; did you mean 'tag'?"),
    ({"image": {"pullPolicy": "always"}}, "values.image.pullPolicy: value must be one of 'Always'"),
    ({"jobDeadline": "soon"}, "values.jobDeadline: expected a text such as 7d"),
    ({"backoffLimit": -1}, "values.backoffLimit: "),
    ({"user": 0}, "values.user: "),
    ({"user": "root"}, "values.user: got string, want "),
    ({"nodeSelector": {"gpu": True}}, "values.nodeSelector.gpu: got boolean, want string"),
    ({"cache": {"volume": {"hostPath": {"path": "/"}}}}, "values.cache.volume: unknown key 'hostPath'"),
    (
        {"jobLabels": {chart.SWEEP: "x"}},
        "values.jobLabels.defectbench.dev/sweep: is the chart's own to write",
    ),
    ({"tmp": {"sizeLimit": "1.5Gi"}}, "values.tmp.sizeLimit: expected a text such as"),
    ({"tracker": "http://mlflow"}, "values.tracker: got string, want object"),
    ({"extraEnv": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "hunter2"}]}, "values.extraEnv.0: "),
    ({"tracker": {"uri": "http://me:hunter2@mlflow"}}, "values.tracker.uri: expected a text such as http://"),
    (
        {"store": {"endpoint": "http://me:hunter2@s3"}},
        "values.store.endpoint: expected a text such as http://",
    ),
]


@pytest.mark.parametrize(("given", "said"), BAD, ids=[said for _, said in BAD])
def test_values_that_break_the_schema_are_refused(renderer: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        chart.render(values([job()], given))
    assert str(error.value).startswith(said)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.code == 78


def test_all_that_is_wrong_with_values_is_said_at_once(renderer: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        chart.render(values([job()], {"imgae": 1, "user": 0, "ttl": 3}))
    first, second = sorted(str(error.value).splitlines())
    assert first.startswith("values.user: ")
    assert second.startswith("values: unknown key 'imgae' (and 'ttl'); did you mean 'image'?")


def test_schema_has_every_value_and_a_word_on_each() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["properties"].keys() - {"global"} == defaults.keys()
    for name, part in schema["properties"].items():
        assert part["description"], name
        if isinstance(defaults.get(name), dict) and defaults[name]:
            assert part["properties"].keys() == defaults[name].keys(), name
            assert part["additionalProperties"] is False


def test_table_of_values_in_the_docs_is_the_charts() -> None:
    spec = importlib.util.spec_from_file_location("table_of_values", ROOT / "docs" / "values.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.render(), "run `make docs`"
    assert "| `jobDeadline` | `7d` | " in module.table()
    assert "| `store.secret` | `defectbench-s3` | " in module.table()


def test_labels_of_the_chart_are_not_the_users_to_set() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    (manifest,) = yaml.safe_load_all((GOLDEN / "one_cell.yaml").read_text())
    (queued,) = yaml.safe_load_all((GOLDEN / "kueue.yaml").read_text())
    ours = manifest["metadata"]["labels"].keys() | queued["metadata"]["labels"].keys() | {chart.DIGEST}
    for name in ("jobLabels", "jobAnnotations", "podLabels"):
        assert schema[name]["properties"] == dict.fromkeys(ours, False)


def test_extras_set_every_value_to_something_else() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    written = {"sweep", "jobs", "environment", "shm"}  # shm: the sweep's resources name one there
    assert EXTRAS.keys() == defaults.keys() - written
    for name, value in EXTRAS.items():
        assert value != defaults[name], name


def test_old_kubernetes_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Kubernetes v1\.28\.3-gke\.1; Jobs here need 1\.29\.0"):
        chart.render(values([job()]), kube_version="v1.28.3-gke.1")


def test_new_kubernetes_is_taken(renderer: str) -> None:
    assert list(chart.render(values([job()]), kube_version="v1.37.2"))


def test_without_any_helm_both_ways_are_named(no_program: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "helm_python", None)
    with pytest.raises(ConfigurationError) as error:
        chart.render(values([job()]))
    assert "DEFECTBENCH_HELM" in str(error.value)
    assert "pip install 'defectbench[helm]'" in str(error.value)


def test_helm_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFECTBENCH_HELM", "/nowhere/helm")
    with pytest.raises(ConfigurationError, match="DEFECTBENCH_HELM is '/nowhere/helm', which is no program"):
        chart.render(values([job()]))


def test_helm_that_breaks_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "helm"
    broken.write_text("#!/bin/sh\necho 'Error: no more disk' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("DEFECTBENCH_HELM", str(broken))
    with pytest.raises(ConfigurationError, match="Helm cannot render the chart: no more disk"):
        chart.render(values([job()]))


def test_output_that_is_no_yaml_is_refused() -> None:
    for document in ('metadata:\n  name: "x"\n  a: [', "- a list\n", "text\n"):
        with pytest.raises(ConfigurationError, match="the chart renders"):
            Reader([]).read(document)


@pytest.mark.parametrize(
    "note",
    ['"padim"', "'\"padim\"'", 'a: "padim" b', "@db0@", '"@db0@"', 'x\n"study"\n---\ny', "{{ .Values }}"],
)
def test_names_are_put_back_where_they_were(renderer: str, note: str) -> None:
    entries = [job(cells=1, first=number) for number in range(3)]
    given = {"jobAnnotations": {"note": note}, "podLabels": {"padim": "padim"}}
    documents = list(helm.template(CHART, values(entries, given), "ns", "1.30.0"))
    reader = Reader(values(entries)["jobs"])
    assert [reader.read(text) for text in documents] == [yaml.safe_load(text) for text in documents]
    assert [reader.read(text)["metadata"]["annotations"]["note"] for text in documents] == [note] * 3


DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
HOSTILE = (
    "two words",
    "metal_nut",
    "v1.2.",
    "-dash",
    "UPPER",
    "zwei Wörter",
    "日本",
    "",
    "...",
    "x" * 300,
    "a" * 62 + "_",
    "../../etc",
    "a\nb",
    '"quoted"',
    "{{ x }}",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_become_names_that_kubernetes_takes(text: str) -> None:
    name = chart.name_of(text, text, text, ["0" * 20])
    assert len(name) <= 52
    assert DNS_LABEL.fullmatch(name)
    assert len(chart.label_value(text)) <= 63
    assert LABEL_VALUE.fullmatch(chart.label_value(text))


@given(
    st.lists(st.text(max_size=80), min_size=3, max_size=3),
    st.lists(st.text(max_size=80), min_size=3, max_size=3),
)
@settings(deadline=None)
def test_names_and_labels_tell_apart_what_differs(one: list[str], other: list[str]) -> None:
    names = [chart.name_of(sweep, model, category, ["0" * 20]) for sweep, model, category in (one, other)]
    assert all(len(name) <= 52 and DNS_LABEL.fullmatch(name) for name in names)
    assert (names[0] == names[1]) == (one == other)
    labels = [chart.label_value(parts[0]) for parts in (one, other)]
    assert all(len(label) <= 63 and LABEL_VALUE.fullmatch(label) for label in labels)
    assert (labels[0] == labels[1]) == (one[0] == other[0])


def test_long_names_keep_a_part_of_each() -> None:
    name = chart.name_of("s" * 60, "padim", "c" * 60, ["0" * 20])
    assert re.fullmatch(r"s{10,}-padim-c{10,}-[0-9a-f]{10}", name)


def test_hostile_names_render(renderer: str) -> None:
    hostile = sweep(name="v1.2.")
    entries = [job(model=model, category=text) for text in HOSTILE for model in ("Padim.", "x" * 63)]
    manifests = list(chart.render(chart.values(hostile, entries, URL, {})))
    assert [manifest["metadata"]["name"] for manifest in manifests] == [entry.name for entry in entries]
    for manifest, entry in zip(manifests, entries, strict=True):
        assert manifest["metadata"]["labels"][chart.CATEGORY] == chart.label_value(entry.category)
        assert all(LABEL_VALUE.fullmatch(text) for text in manifest["metadata"]["labels"].values())


@pytest.fixture
def planned(tmp_path: Path) -> plans.Plan:
    """A plan of two categories: padim has one fit in each, filterbank-logreg three."""
    store = DirectoryStore(tmp_path / "store")
    for category in ("brick", "grass"):
        put_category(store, "parts", category, 12, 6, 6, ("crack", "stain"), True)
    models = [{"name": "padim", "resources": {"gpu": 1}}, "filterbank-logreg"]
    return plans.make_plan(sweep(models=models, image_size=64, protocols={"detection": {"folds": 3}}), store)


def grouped(planned: plans.Plan, most: int | None = None, wanted: Any = None) -> list[chart.JobEntry]:
    settled = planned.sweep.model_copy(update={"cellsPerJob": most})
    return list(chart.group(settled, planned.cells, planned.labels, wanted))


def test_a_job_holds_a_model_and_a_category(planned: plans.Plan) -> None:
    jobs = grouped(planned)
    found = {(entry.model, entry.category, len(entry.cells), entry.resources.gpu) for entry in jobs}
    assert found == {
        ("padim", "brick", 1, 1),
        ("padim", "grass", 1, 1),
        ("filterbank-logreg", "brick", 3, 0),
        ("filterbank-logreg", "grass", 3, 0),
    }
    assert sorted(key for entry in jobs for key in entry.cells) == sorted(planned.cells)
    assert [entry.name for entry in grouped(planned)] == [entry.name for entry in jobs]


def test_cells_per_job_cuts_groups(planned: plans.Plan) -> None:
    jobs = grouped(planned, most=2)
    sizes = [len(entry.cells) for entry in jobs if entry.model == "filterbank-logreg"]
    assert sizes == [2, 1, 2, 1]
    assert len({entry.name for entry in jobs}) == len(jobs)


def test_narrowing_leaves_the_other_jobs_as_they_are(planned: plans.Plan) -> None:
    whole = {entry.name: entry for entry in grouped(planned, most=2)}
    grass = grouped(planned, most=2, wanted=planned.narrowed(Narrowing(categories=["grass"])))
    assert {entry.category for entry in grass} == {"grass"}
    assert all(whole[entry.name] == entry for entry in grass)
    last = list(planned.cells)[-1]
    (single,) = grouped(planned, wanted=planned.narrowed(Narrowing(cells=[last])))
    assert single.cells == (last,)
    (manifest,) = (entry for entry in [single] if entry.name not in {j.name for j in grouped(planned)})
    assert manifest.model == planned.labels[last]


def test_endless_groups_are_cut_and_said(planned: plans.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart, "MOST_CELLS", 2)
    jobs = grouped(planned)
    assert max(len(entry.cells) for entry in jobs) == 2
    said = chart.warnings(planned.sweep, chart.values(planned.sweep, jobs, URL, {}), {})
    assert "a Job holds at most 2 cells: a larger group is cut into several Jobs" in said


def test_a_job_of_most_cells_renders(renderer: str) -> None:
    manifest = one(cells=chart.MOST_CELLS)
    assert len(chart.cells_of(manifest)) == chart.MOST_CELLS
    assert len(json.dumps(manifest)) < 100_000
    with pytest.raises(ConfigurationError, match=r"values\.jobs\.0\.cells: "):
        one(cells=chart.MOST_CELLS + 1)


def test_shared_memory_above_the_memory_is_refused(planned: plans.Plan) -> None:
    models = [{"name": "padim", "resources": {"memory": "1Gi", "shm": "1024Mi"}}, "filterbank-logreg"]
    settled = sweep(models=models)
    with pytest.raises(SweepError, match="padim: shm 1024Mi counts into the memory, 1Gi"):
        chart.group(settled, planned.cells, planned.labels)


def test_warnings_name_what_pods_will_not_find() -> None:
    mine = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:7070"}
    given = {"store": {"endpoint": "http://s3"}, "tracker": {"uri": "http://mlflow"}}
    assert chart.warnings(sweep(), values([job()], given), mine) == []
    endpoint, tracker = chart.warnings(sweep(), values([job()]), mine)
    assert "store.endpoint" in endpoint
    assert "tracker.uri" in tracker
    (directory, _) = chart.warnings(sweep(), values([job()], {}, "bench"), mine)
    assert "bench is a directory, which pods do not see" in directory
    volume = {
        "store": {"volume": {"persistentVolumeClaim": {"claimName": "bench"}}},
        **{"tracker": given["tracker"]},
    }
    assert chart.warnings(sweep(), values([job()], volume, "bench"), mine) == []
