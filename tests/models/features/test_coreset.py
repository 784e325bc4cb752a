import numpy as np
import pytest

from defectbench.models.features import coreset

pytestmark = pytest.mark.torch


def textbook(points: np.ndarray, count: int, seed: int) -> list[int]:
    """k-centre greedy as a textbook has it: all distances to each new centre, the farthest point next."""
    points = points.astype(np.float64)
    chosen = [int(np.random.default_rng(seed).integers(len(points)))]
    nearest = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def cloud(rows: int, width: int, seed: int) -> np.ndarray:
    """Points near a curved surface, as patch features are."""
    rng = np.random.default_rng(seed)
    surface = np.tanh(rng.normal(size=(rows, 4)) @ rng.normal(size=(4, width)))
    return (surface + 0.1 * rng.normal(size=(rows, width))).astype(np.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("rows", "width", "count"), [(3000, 40, 300), (700, 5, 700), (50, 3, 7), (1, 4, 1)])
def test_k_centres_is_the_textbook_loop(rows: int, width: int, count: int, seed: int) -> None:
    points = coreset.on_grid(cloud(rows, width, seed))
    assert coreset.k_centres(points, count, seed).tolist() == textbook(points, count, seed)


def test_k_centres_is_the_textbook_loop_on_points_that_were_not_rounded() -> None:
    points = cloud(2000, 60, 3)
    assert coreset.k_centres(coreset.on_grid(points), 200, 0).tolist() == textbook(points, 200, 0)


def test_k_centres_breaks_ties_as_the_textbook_loop() -> None:
    points = np.random.default_rng(0).integers(-2, 3, size=(500, 4)).astype(np.int16)
    assert coreset.k_centres(points, 400, 5).tolist() == textbook(points, 400, 5)


def test_k_centres_does_not_depend_on_its_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    points = coreset.on_grid(cloud(2000, 20, 4))
    whole = coreset.k_centres(points, 250, 0)
    monkeypatch.setattr(coreset, "_ACTIVE", 37)
    monkeypatch.setattr(coreset, "_COLUMNS", 11)
    assert np.array_equal(coreset.k_centres(points, 250, 0), whole)


def test_k_centres_stops_when_told() -> None:
    def stop(done: int) -> None:
        if done == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        coreset.k_centres(coreset.on_grid(cloud(100, 5, 0)), 50, 0, tell=stop)


def test_projection_keeps_distances() -> None:
    points = cloud(400, 1500, 1)
    matrix = coreset.projection(len(points), 1500, seed=0)
    assert matrix is not None
    assert matrix.shape == (1500, coreset.projected_width(400))
    before = np.linalg.norm(points[:200] - points[200:], axis=1)
    after = np.linalg.norm(points[:200] @ matrix - points[200:] @ matrix, axis=1)
    assert 0.9 < np.mean(after / before) < 1.1
    assert np.corrcoef(before, after)[0, 1] > 0.8
    other = coreset.projection(len(points), 1500, seed=1)
    assert other is not None
    assert not np.array_equal(matrix, other)


def test_projection_never_widens() -> None:
    assert coreset.projection(10_000, 64, seed=0) is None


def test_grid_keeps_the_largest_coordinate() -> None:
    assert coreset.on_grid(np.array([[-2.0, 1.0], [0.0, 0.5]], np.float32)).tolist() == [
        [-32767, 16384],
        [0, 8192],
    ]
    assert not coreset.on_grid(np.zeros((3, 2), np.float32)).any()
