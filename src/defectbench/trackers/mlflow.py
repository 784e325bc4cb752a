"""MLflow, through its client only: no global active run, no global tracking URI."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from defectbench.errors import (
    BugError,
    ConfigurationError,
    DefectbenchError,
    MissingInputError,
    NoRightsError,
    TryAgainError,
)
from defectbench.trackers.base import RunAttachments, TrackedData, TrackedRun, Tracker
from defectbench.trackers.database import make_database
from defectbench.util.files import disk_errors, locked
from defectbench.util.secrets import redact, redact_uri

_SETTINGS = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's own would wait four minutes for a server that is down, and fourteen for one that hangs.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MLflow's own dependencies: none of ours to mend
    from mlflow.entities import (
        Dataset,
        DatasetInput,
        Experiment,
        InputTag,
        Metric,
        Param,
        RunTag,
        ViewType,
    )
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

for _name in ("mlflow", "alembic", "urllib3.connectionpool"):
    # What goes wrong is raised; logged as well, it would appear twice and with the credentials in it.
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)

CLAIM = "defectbench.claim"
_NOTE, _COLOUR = "mlflow.note.content", "mlflow.runColor"
_STATUS = {"finished": "FINISHED", "failed": "FAILED"}
_METRICS, _OTHERS = 1000, 100
"""What one batch may hold."""

# Within MLflow's limits: a longer value would fail the whole batch.
_LONGEST_PARAM, _LONGEST_TAG, _LONGEST_DIGEST = 6000, 5000, 36
_ODD = re.compile(r"[^\w\-. :/]")
_RACE = re.compile(r"UNIQUE constraint failed|duplicate key|Duplicate entry|IntegrityError")
_FORBIDDEN = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_GONE = {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}
_OURS = {"INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST"}
_EXPERIMENT = {"mlflow.experimentKind": "custom_model_development"}
"""Without this tag MLflow's page asks whether the experiment is about language models."""


class MlflowTracker(Tracker):
    """An MLflow server or database.

    Args:
        uri: as MLflow takes it.
        database: the sqlite file, where it is one: files of runs lie beside it, in ``mlflow-artifacts``.
    """

    def __init__(self, uri: str, database: Path | None = None) -> None:
        self.place = redacted(uri, uri)
        self._uri = uri
        self._database = database
        self._opened: MlflowClient | None = None

    def open(self, experiment: str) -> str:
        """Return ``<id>@<time of creation>``."""
        with self._asking():
            found = self._find(experiment) or self._make(experiment)
        if found.lifecycle_stage != "active":
            raise ConfigurationError(
                f"{self.place}: the experiment {experiment!r} is deleted there; restore it "
                f"(`mlflow experiments restore -x {found.experiment_id}`) or remove it for good "
                "(`mlflow gc`), then track again"
            )
        return f"{found.experiment_id}@{found.creation_time}"

    def create(self, experiment: str, run: TrackedRun, started: int, claim: str) -> str:
        """Create the run; its tags and params follow with :meth:`write`."""
        tags = {CLAIM: claim, "mlflow.source.name": "defectbench", "mlflow.source.type": "LOCAL"}
        if run.parent is not None:
            tags["mlflow.parentRunId"] = run.parent
        with self._asking():
            made = self._client.create_run(
                self._id(experiment), start_time=started, tags=_cut(run.tags) | tags, run_name=run.name
            )
        return str(made.info.run_id)

    def find(self, experiment: str, claim: str) -> tuple[str, ...]:
        """Search by the claim's tag."""
        with self._asking():
            runs = self._client.search_runs(
                [self._id(experiment)],
                f"tags.`{CLAIM}` = '{claim}'",
                ViewType.ACTIVE_ONLY,
                order_by=["attributes.start_time ASC"],
            )
        return tuple(run.info.run_id for run in runs)

    def write(self, run_id: str, run: TrackedRun, started: int) -> None:
        """Log in batches, then set the status: a run that is marked finished is whole."""
        attached = run.attach()
        with self._asking(run_id):
            self._batches(run_id, _metrics(run, attached, started), run)
            if run.data is not None:
                _unless_raced(partial(self._client.log_inputs, run_id, [_data_input(run.data)]))
            if attached.files:
                self._files(run_id, attached.files)
            # It was created as running: to say so again could undo what a quicker writer has finished.
            if run.status != "running":
                self._client.set_terminated(run_id, _STATUS[run.status], started + round(run.seconds * 1000))

    def delete(self, run_id: str) -> None:
        """Move the run to MLflow's bin; `mlflow gc` empties that."""
        with suppress(MissingInputError), self._asking(run_id):
            self._client.delete_run(run_id)

    @property
    def _client(self) -> MlflowClient:
        """MLflow's client, connected on first use."""
        if self._opened is None:
            self._opened = self._connect()
        return self._opened

    def _connect(self) -> MlflowClient:
        """Return a client; of an sqlite file once it can be written."""
        if self._database is None:
            return MlflowClient(tracking_uri=self._uri)
        with disk_errors(self._database), locked(self._database.with_name(f".{self._database.name}.lock")):
            # Two processes that make the tables of a new database at once would trip over each other.
            make_database(self._database)
            return MlflowClient(tracking_uri=self._uri)

    def _make(self, experiment: str) -> Experiment:
        """Create the experiment, or return the one that somebody else just did."""
        place = None if self._database is None else self._database.with_name("mlflow-artifacts") / experiment
        try:
            self._client.create_experiment(
                experiment, artifact_location=place.as_uri() if place else None, tags=_EXPERIMENT
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = self._find(experiment)
        if found is None:
            raise TryAgainError(f"{self.place}: the experiment {experiment!r} was just removed; try again")
        return found

    def _find(self, experiment: str) -> Experiment | None:
        """Return the experiment, deleted or not, or None."""
        return self._client.get_experiment_by_name(experiment)

    @staticmethod
    def _id(experiment: str) -> str:
        """Return MLflow's id of the experiment from what :meth:`open` gave."""
        return experiment.partition("@")[0]

    def _batches(self, run_id: str, metrics: Sequence[Metric], run: TrackedRun) -> None:
        """Log params, tags and figures, each within MLflow's limits."""
        params = [Param(name, value[:_LONGEST_PARAM]) for name, value in run.params.items()]
        tags = [
            RunTag(name, value)
            for name, value in _cut({**run.tags, _NOTE: run.note, _COLOUR: run.colour}).items()
        ]
        for first in range(0, max(len(params), len(tags)), _OTHERS):
            part = slice(first, first + _OTHERS)
            log = partial(self._client.log_batch, run_id, params=params[part], tags=tags[part])
            _unless_raced(partial(log, synchronous=True))
        for first in range(0, len(metrics), _METRICS):
            points = metrics[first : first + _METRICS]
            _unless_raced(partial(self._client.log_batch, run_id, metrics=points, synchronous=True))

    def _files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Log files; MLflow takes them from a folder."""
        with tempfile.TemporaryDirectory() as directory:
            for name, data in files.items():
                Path(directory, name).write_bytes(data)
            self._client.log_artifacts(run_id, directory)

    @contextmanager
    def _asking(self, run_id: str = "") -> Iterator[None]:
        """Turn MLflow's errors into ours, without credentials and without a chain that would show them."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except DefectbenchError:
            raise
        except MlflowException as error:
            raise self._meaning(error, run_id) from None
        except Exception as error:
            raise self._permanent(error) or self._out_of_reach(error) from None

    def _meaning(self, error: MlflowException, run_id: str) -> DefectbenchError:
        """Return what an answer of MLflow's means to the caller."""
        text = redacted(str(error), self._uri)
        if error.error_code in _FORBIDDEN:
            return NoRightsError(
                f"{self.place}: MLflow refuses: {text}; set MLFLOW_TRACKING_USERNAME "
                "and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        if error.error_code in _GONE or "must be in the 'active' state" in text:
            return MissingInputError(f"{self.place}: MLflow has no run {run_id} any more: {text}")
        if error.error_code in _OURS:
            return BugError(f"{self.place}: MLflow takes it not: {text}")
        return self._out_of_reach(error)

    def _permanent(self, error: Exception) -> ConfigurationError | None:
        """Return the error of what no second try can mend; None where one may."""
        if isinstance(error, ImportError):
            return ConfigurationError(
                f"{self.place}: this kind of database needs the package {error.name or error}: install it "
                "beside MLflow"
            )
        # An MLflow server without --serve-artifacts tells its clients to write to its own disk.
        if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError) and not self._database:
            return ConfigurationError(
                f"{self.place}: runs' files would lie at {error.filename}, where only the server can write: "
                "start it with --artifacts-destination (and without --no-serve-artifacts), then make the "
                "experiment anew"
            )
        return None

    def _out_of_reach(self, error: Exception) -> DefectbenchError:
        """Return the error of a tracker that can be tried again."""
        text = redacted(str(error), self._uri)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return ConfigurationError(
                f"{self.place}: its certificate is signed by nobody whom this machine trusts; name the file "
                "of your own authority's certificate: REQUESTS_CA_BUNDLE=/path/to/ca.pem"
            )
        first = (text.splitlines() or [type(error).__name__])[0]
        return TryAgainError(
            f"{self.place}: MLflow cannot be reached or written now ({first[:300]}); nothing is lost: "
            "`defectbench track SWEEP` fills it from the store later"
        )


def redacted(text: str, uri: str) -> str:
    """Return ``text`` without the credentials of ``uri`` and of the environment.

    >>> redacted("cannot reach http://me:pa%40ss@host:5000/x", "http://me:pa%40ss@host:5000")
    'cannot reach http://***@host:5000/x'
    """
    secrets = [os.environ.get("MLFLOW_TRACKING_PASSWORD"), os.environ.get("MLFLOW_TRACKING_TOKEN")]
    with suppress(ValueError):
        login, _, _ = urlsplit(uri).netloc.rpartition("@")
        password = login.partition(":")[2]
        text = text.replace(f"{login}@", "***@") if login else text
        secrets += [password, unquote(password)]
    for secret in secrets:
        text = text.replace(secret, "***") if secret else text
    return redact_uri(text) if text == uri else redact(text)


def _unless_raced(write: Callable[[], object]) -> None:
    """Write; once more where another tracker wrote the same at the same time: then it finds it there."""
    for last in (False, False, True):
        try:
            write()
        except MlflowException as error:
            if last or not _RACE.search(str(error)):
                raise
        else:
            return


def _data_input(data: TrackedData) -> DatasetInput:
    """Return the data as MLflow's list of datasets shows them; digests are cut to what it takes."""
    dataset = Dataset(
        data.name, data.digest[:_LONGEST_DIGEST], "defectbench", json.dumps({"uri": data.source})
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "test")])


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that have a value, each within MLflow's limit."""
    return {name: value[:_LONGEST_TAG] for name, value in tags.items() if value}


def _metrics(run: TrackedRun, attached: RunAttachments, started: int) -> list[Metric]:
    """Return the figures and the curves' points that are numbers, all at the run's own time."""
    figures = [(name, value, 0) for name, value in run.metrics.items()]
    points = [(point.name, point.value, point.epoch) for point in attached.curves]
    return [
        # One time for all, so that a second writing of the run logs the very same points.
        Metric(_ODD.sub("_", name), value, started, step)
        for name, value, step in figures + points
        if math.isfinite(value)
    ]
