"""``defectbench export`` and ``inspect``: a cell's model in a folder, and pictures scored with it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from defectbench.cli.options import (
    cache_option,
    cache_or_default,
    device_option,
    note,
    open_store,
    print_json,
    print_table,
    progress_bar,
    store_option,
    sweep_name,
)

if TYPE_CHECKING:
    from defectbench.export.bundle import Bundle
    from defectbench.export.scores import ScoredPicture

_FALSE_ALARM_RATE = 0.05

_COLUMNS = ("path", "score", "threshold", "call")


@click.command()
@click.argument("cell", metavar="[CELL]", required=False)
@click.option(
    "--winner", metavar="CATEGORY", help="Instead of CELL: the family that the verdict names for it."
)
@click.option(
    "--sweep", metavar="SWEEP", help="Whose verdict; needed where several sweeps have the category."
)
@store_option
@cache_option
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write: new, empty, or an earlier export.",
)
@click.option(
    "--false-alarm-rate",
    "rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of good parts that the threshold may call abnormal.  [default: 0.05; with --winner the "
    "sweep's]",
)
@click.option(
    "--onnx/--no-onnx", default=True, show_default=True, help="Also model.onnx, for fine-tuned classifiers."
)
def export(
    cell: str | None,
    winner: str | None,
    sweep: str | None,
    store: str,
    cache: Path | None,
    out: Path,
    rate: float | None,
    onnx: bool,
) -> None:
    """Write a finished cell's model into a folder: state, settings, threshold, and a card explaining them.

    CELL is a key, or how it starts; `plan SWEEP --format json` lists a sweep's. --winner takes the middle fit
    of the model that the verdict names. The store keeps no fitted models: the cell is fitted again, on the
    device where it was, and nothing is written unless every score is the cell's to the last bit.
    """
    from defectbench.errors import UsageError
    from defectbench.export import folder, refit
    from defectbench.export.winner import find_sweep, find_winner
    from defectbench.records.result import differing_versions

    if (cell is None) == (winner is None):
        raise UsageError("give either CELL or --winner CATEGORY")
    if sweep is not None and winner is None:
        raise UsageError("--sweep belongs to --winner: a cell is one fit, whatever the sweep")
    folder.check_out(out)
    place = open_store(store)
    remarks: tuple[str, ...] = ()
    if winner is not None:
        found = find_winner(place, sweep_name(sweep) if sweep else find_sweep(place, winner), winner)
        note(f"{found.sweep}: {found.label} is the winner on {winner}; its middle fit is cell {found.cell}")
        cell, remarks = found.cell, found.remarks
        rate = rate or found.false_alarm_rate
    assert cell is not None
    rate = rate or _FALSE_ALARM_RATE
    finished = refit.gather_cell(place, refit.find_key(place, cell), cache_or_default(cache))
    for text in differing_versions(finished.result.versions):
        note(f"note: the cell was fitted with {text}; if that matters, its scores will differ")
    with progress_bar() as report:
        bundle = folder.write_export(finished, folder.ExportRequest(out, rate, onnx, remarks), report)
    _print_export(bundle, out)


def _print_export(bundle: Bundle, out: Path) -> None:
    """Print what was written, how it was checked, and what the threshold keeps."""
    proof, threshold = bundle.proof, bundle.threshold
    note(f"wrote {out}: {bundle.model} for {bundle.category}, cell {bundle.cell}")
    note(f"checked: {proof.equal} of {proof.images} scores of the cell are equal to the last bit")
    if proof.equal < proof.images:
        others = f"the others differ by {proof.largest_difference:.3g} at most"
        note(f"{others}; {proof.calls_changed} calls changed")
    if proof.onnx_images is not None:
        note(f"model.onnx: log-odds within {proof.onnx_largest_difference:.2g} of torch's")
    if threshold.value is None or threshold.false_alarm_rate is None:
        note("no threshold: the fit had no calibration goods")
    else:
        kept = f"keeps {threshold.false_alarm_rate:.2%} false alarms on {threshold.goods} calibration goods"
        note(f"threshold {threshold.value!r}: {kept}, asked were {threshold.asked:.2%}")


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for overlays.")
@click.option(
    "--maps", type=click.Path(file_okay=False, path_type=Path), help="Folder for heat maps as numbers."
)
@device_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="A table for people, JSON or CSV for pipes.",
)
def inspect(
    model: Path, images: tuple[Path, ...], out: Path | None, maps: Path | None, device: str, form: str
) -> None:
    """Score pictures with an exported MODEL: files, or folders and all below them. No store is needed.

    All pictures are read before the first is scored; those that cannot be are named, and nothing is scored
    (65). Abnormal is what scores above the model's threshold. With --out each picture gets OUT/NAME.webp: the
    picture, and its heat map laid over it, on one scale for all. With --maps each gets its heat map, at its
    own size, in MAPS/anomaly_images (TIFF, float16), and what is hotter there than in good parts in
    MAPS/anomaly_images_thresholded (PNG): the form of MVTec AD 2's evaluation server.
    """
    from defectbench.export import heat_maps, scores
    from defectbench.export.bundle import read_bundle

    found = scores.find_pictures(images)
    bundle = read_bundle(model)
    if maps is not None:
        heat_maps.check_maps(found, bundle)
    with progress_bar() as report:
        scores.check_pictures(found, bundle.intensity, report)
        ready = scores.ExportedModel.open(model, device)
        drift = ready.drift()
        rows = []
        for scored in ready.score(found):
            rows.append(_row(scored))
            if out is not None:
                scores.write_overlay(scored, ready.bundle, out)
            if maps is not None:
                heat_maps.write_maps(scored, ready.bundle, maps)
            report("scoring", len(rows), len(found))
    if drift:
        note(
            f"note: a test pattern scores {drift:.3g} away from what it scored at export: other libraries, "
            "another device or another processor round otherwise"
        )
    _print_rows(rows, form)
    if out is not None:
        note(f"wrote {len(rows)} overlays to {out}")
    if maps is not None:
        note(f"wrote {len(rows)} heat maps to {maps}")


def _row(scored: ScoredPicture) -> dict[str, Any]:
    """Return a scored picture as a row."""
    values = (str(scored.found.path), scored.score, scored.threshold, scored.call)
    return dict(zip(_COLUMNS, values, strict=True))


def _print_rows(rows: Iterable[Mapping[str, Any]], form: str) -> None:
    """Print the scores and calls; JSON and CSV have scores in full."""
    listed = list(rows)
    if form == "json":
        print_json(listed)
    elif form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(listed)
        click.echo(text.getvalue(), nl=False)
    else:
        print_table(
            _COLUMNS, [["-" if row[name] is None else row[name] for name in _COLUMNS] for row in listed]
        )
