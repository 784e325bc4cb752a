"""The parquet files of a cell. About 1 s."""

from __future__ import annotations

import io
import math

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from defectbench.errors import DataError, MissingInputError
from defectbench.records.predictions import (
    EXPLANATION,
    HistoryPoint,
    PredictionRow,
    Predictions,
    history_from_parquet,
    history_to_parquet,
)

ROWS = (
    PredictionRow("test/good/000", 0, "good", "held_out", -1.5),
    PredictionRow("test/scratch/000", 1, "scratch", "held_out", 2.25, 0.9, 0.5, 1.0, 0.25),
    PredictionRow("test/scratch/001", 1, "scratch", "validation", 1 / 3),
    PredictionRow("train/good/Mäß 7", 0, "good", "calibration", -1e300),
)


@pytest.fixture
def predictions() -> Predictions:
    return Predictions.of("c0ffee", ROWS)


def table_of(data: bytes) -> pa.Table:
    return parquet.read_table(io.BytesIO(data))


def bytes_of(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def test_predictions_come_back_from_parquet_bit_for_bit(predictions: Predictions) -> None:
    again = Predictions.from_parquet(predictions.to_parquet())
    assert again.cell == "c0ffee"
    assert repr(again.rows()) == repr(ROWS)  # repr: NaN equals NaN there
    assert again.score.tobytes() == predictions.score.tobytes()
    assert again.to_parquet() == predictions.to_parquet()


def test_predictions_bytes_do_not_depend_on_how_rows_came(predictions: Predictions) -> None:
    ids = predictions.image_id.tolist()
    shuffled = Predictions.of("c0ffee", ROWS[::-1]).select(ids)
    assert shuffled.to_parquet() == predictions.to_parquet()


def test_predictions_file_has_the_designs_columns_and_nulls(predictions: Predictions) -> None:
    table = table_of(predictions.to_parquet())
    assert table.column_names == ["cell", "image_id", "label", "defect_type", "role", "score", *EXPLANATION]
    assert all(table[name].null_count == 3 for name in EXPLANATION)
    assert table["score"].null_count == 0


def test_predictions_keep_a_nan_score_apart_from_null() -> None:
    rows = [PredictionRow("a", 0, "good", "held_out", math.nan)]
    data = Predictions.of("c", rows).to_parquet()
    assert table_of(data)["score"].null_count == 0
    assert math.isnan(Predictions.from_parquet(data).score[0])


def test_predictions_select_keeps_the_order_asked_for(predictions: Predictions) -> None:
    ids = ["test/scratch/001", "test/good/000"]
    chosen = predictions.select(ids)
    assert chosen.image_id.tolist() == ids
    assert chosen.score.tolist() == [1 / 3, -1.5]
    assert chosen.label.tolist() == [1, 0]
    assert len(predictions.select([])) == 0


def test_predictions_select_names_what_is_missing(predictions: Predictions) -> None:
    with pytest.raises(MissingInputError, match=r"1 of 2 images: test/none"):
        predictions.select(["test/good/000", "test/none"])


def test_predictions_of_role_keeps_order(predictions: Predictions) -> None:
    assert predictions.of_role("held_out").image_id.tolist() == ["test/good/000", "test/scratch/000"]
    assert predictions.of_role("calibration").score.tolist() == [-1e300]


def test_predictions_name_all_problems_at_once() -> None:
    rows = [
        PredictionRow("a", 0, "good", "held_out", 0.0),
        PredictionRow("a", 2, "good", "train", 0.0),  # type: ignore[arg-type]
    ]
    with pytest.raises(DataError) as error:
        Predictions.of("c", rows)
    text = str(error.value)
    assert len(error.value.problems) == 3
    assert all(part in text for part in ("image a", "'train'", "label 2"))


def test_predictions_refuse_columns_of_different_lengths(predictions: Predictions) -> None:
    columns = {name: getattr(predictions, name) for name in PredictionRow.__dataclass_fields__}
    with pytest.raises(DataError, match="differ in length"):
        Predictions("c", **(columns | {"score": np.zeros(3)}))


def test_predictions_refuse_another_schema(predictions: Predictions) -> None:
    table = table_of(predictions.to_parquet())
    other = table.drop_columns(["iou"]).append_column("extra", pa.array([1] * 4))
    other = other.set_column(other.column_names.index("score"), "score", pa.array([1, 2, 3, 4]))
    with pytest.raises(DataError) as error:
        Predictions.from_parquet(bytes_of(other))
    assert error.value.problems == (
        "predictions: column iou is missing",
        "predictions: unknown column extra",
        "predictions: column score is int64, expected double",
    )


def test_predictions_refuse_nulls_where_none_may_be(predictions: Predictions) -> None:
    table = table_of(predictions.to_parquet())
    holes = table.set_column(
        table.column_names.index("score"), "score", pa.array([None, 1.0, 2.0, None], pa.float64())
    )
    with pytest.raises(DataError, match="column score has 2 nulls"):
        Predictions.from_parquet(bytes_of(holes))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1 not really a parquet file PAR1"])
def test_predictions_refuse_other_files(data: bytes) -> None:
    with pytest.raises(DataError, match="not a parquet file"):
        Predictions.from_parquet(data)


def test_predictions_refuse_rows_of_two_cells(predictions: Predictions) -> None:
    both = pa.concat_tables(
        [table_of(predictions.to_parquet()), table_of(Predictions.of("other", ROWS).to_parquet())]
    )
    with pytest.raises(DataError, match="one cell, got 2"):
        Predictions.from_parquet(bytes_of(both))


def test_history_comes_back_in_order() -> None:
    points = (
        HistoryPoint(1, "train_loss", 0.7),
        HistoryPoint(1, "tuning_auroc", 0.5),
        HistoryPoint(2, "train_loss", math.inf),
    )
    data = history_to_parquet(points)
    assert history_from_parquet(data) == points
    assert history_to_parquet(points) == data
    assert history_from_parquet(history_to_parquet([])) == ()


def test_history_refuses_another_schema(predictions: Predictions) -> None:
    with pytest.raises(DataError, match="column epoch is missing"):
        history_from_parquet(predictions.to_parquet())
