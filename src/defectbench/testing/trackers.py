"""What every tracker promises, held against one kind of tracker."""

from __future__ import annotations

import pytest

from defectbench.errors import MissingInputError
from defectbench.trackers.base import RunAttachments, TrackedRun, Tracker

STARTED = 1_000_000


def made_up_run(name: str = "run", **more: object) -> TrackedRun:
    """Return a run with one figure and one file."""
    values: dict[str, object] = {
        "status": "finished",
        "seconds": 1.5,
        "tags": {"level": "parent"},
        "params": {"folds": "3"},
        "metrics": {"image_auroc": 0.75},
        "attach": lambda: RunAttachments(files={"predictions.csv": b"a,b\n1,2\n"}),
    }
    return TrackedRun(name, **(values | more))  # type: ignore[arg-type]


class TrackerContract:
    """Subclass it as ``TestMine`` and give ``tracker``: one that is new and empty for each test."""

    @pytest.fixture
    def tracker(self) -> Tracker:
        """A fresh, empty tracker."""
        raise NotImplementedError("give the fixture tracker: a fresh, empty tracker")

    def test_an_experiment_keeps_its_name_and_no_other_has_it(self, tracker: Tracker) -> None:
        first = tracker.open("one")
        assert tracker.open("one") == first
        assert tracker.open("two") != first

    def test_a_run_is_found_by_its_claim_alone(self, tracker: Tracker) -> None:
        experiment = tracker.open("one")
        assert tracker.find(experiment, "mine") == ()
        run_id = tracker.create(experiment, made_up_run(), STARTED, "mine")
        assert tracker.find(experiment, "mine") == (run_id,)
        assert tracker.find(experiment, "another") == ()
        assert tracker.find(tracker.open("two"), "mine") == ()

    def test_runs_of_one_claim_are_found_oldest_first(self, tracker: Tracker) -> None:
        experiment = tracker.open("one")
        later = tracker.create(experiment, made_up_run(), STARTED + 5000, "mine")
        earlier = tracker.create(experiment, made_up_run(), STARTED, "mine")
        assert set(tracker.find(experiment, "mine")) == {earlier, later}
        assert tracker.find(experiment, "mine")[0] == earlier

    def test_a_run_is_written_again_and_changed(self, tracker: Tracker) -> None:
        experiment = tracker.open("one")
        run_id = tracker.create(experiment, made_up_run(), STARTED, "mine")
        for run in (made_up_run(), made_up_run(), made_up_run(metrics={"image_auroc": 0.5, "f1": 1.0})):
            tracker.write(run_id, run, STARTED)
        assert tracker.find(experiment, "mine") == (run_id,)

    def test_a_run_lies_below_another(self, tracker: Tracker) -> None:
        experiment = tracker.open("one")
        parent = tracker.create(experiment, made_up_run(), STARTED, "parent")
        nested = made_up_run("nested", parent=parent)
        run_id = tracker.create(experiment, nested, STARTED, "nested")
        tracker.write(run_id, nested, STARTED)
        assert tracker.find(experiment, "nested") == (run_id,)

    def test_a_run_that_is_gone_cannot_be_written_and_is_deleted_again(self, tracker: Tracker) -> None:
        experiment = tracker.open("one")
        run_id = tracker.create(experiment, made_up_run(), STARTED, "mine")
        tracker.delete(run_id)
        tracker.delete(run_id)
        assert tracker.find(experiment, "mine") == ()
        with pytest.raises(MissingInputError):
            tracker.write(run_id, made_up_run(), STARTED)
