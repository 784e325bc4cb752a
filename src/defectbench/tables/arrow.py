"""A sweep's predictions and figures as tables, a row for each image and for each line of figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from defectbench.metrics.image import METRICS
from defectbench.records.predictions import EXPLANATION, Predictions
from defectbench.tables.collect import Collected, FigureRow, Fold

if TYPE_CHECKING:
    import pyarrow as pa

_FOLD = {
    "model": "string",
    "family": "string",
    "category": "string",
    "protocol": "string",
    "condition": "string",
    "seed": "int64",
    "fold": "int64",
    "cell": "string",
    "threshold": "double",
}
_IMAGE = {"image_id": "string", "label": "int8", "defect_type": "string", "score": "double"} | dict.fromkeys(
    EXPLANATION, "double"
)
_FIGURE = {
    "model": "string",
    "family": "string",
    "category": "string",
    "protocol": "string",
    "condition": "string",
    "seed": "int64",
    "folds": "int64",
    "expected": "int64",
}


def predictions_table(collected: Collected) -> pa.Table:
    """Return a row for each tested image of each fold that has a result; NaN is null."""
    import pyarrow as pa

    schema = _schema(_FOLD | _IMAGE)
    parts = [_fold_table(collected, fold, schema) for fold in collected.folds()]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def figures_table(collected: Collected) -> pa.Table:
    """Return a row for each line of figures, a column for each metric; what is undefined is null."""
    import pyarrow as pa

    schema = _schema(_FIGURE | {metric.name: "double" for metric in METRICS})
    rows = [_figures(row) for row in collected.rows()]
    columns = {
        name: pa.array([row.get(name) for row in rows], schema.field(name).type, from_pandas=True)
        for name in schema.names
    }
    return pa.table(columns, schema=schema)


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()])


def _fold_table(collected: Collected, fold: Fold, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    count = len(fold.test)
    shared = {name: [value] * count for name, value in _of_fold(collected, fold).items()}
    columns = shared | dict(_of_images(fold.test))
    arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _of_fold(collected: Collected, fold: Fold) -> dict[str, Any]:
    """Return what all images of a fold have in common."""
    return {
        "model": fold.reading.label,
        "family": collected.contestant(fold.reading.label).family,
        "category": fold.category,
        "protocol": fold.split.protocol,
        "condition": fold.split.drawn,
        "seed": fold.reading.seed,
        "fold": fold.split.fold,
        "cell": fold.reading.cell,
        "threshold": fold.threshold,
    }


def _of_images(rows: Predictions) -> Iterator[tuple[str, Any]]:
    for name in _IMAGE:
        yield name, getattr(rows, name)


def _figures(row: FigureRow) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in _FIGURE if name != "model"}
    return {"model": row.label, **own, **row.figures}
