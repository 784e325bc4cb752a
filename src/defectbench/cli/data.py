"""``defectbench data``: make, check, import and look at data sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from defectbench.cli.options import (
    format_option,
    note,
    open_store,
    print_json,
    print_table,
    progress_bar,
    store_option,
)
from defectbench.data.names import LAYOUT_NAMES

if TYPE_CHECKING:
    from defectbench.data.check import CheckReport
    from defectbench.data.layouts import Wishes
    from defectbench.data.manifest import Manifest

layout_option = click.option(
    "--layout",
    type=click.Choice(LAYOUT_NAMES),
    help="How the files lie.  [default: recognised]",
)
links_option = click.option(
    "--follow-links", is_flag=True, help="Read what links out of SRC lead to; without it they are refused."
)
accept_option = click.option(
    "--accept-duplicates",
    is_flag=True,
    help="Keep copies of one picture under two labels, good and defective; without it they are a problem.",
)
intensity_option = click.option(
    "--intensity",
    default="auto",
    show_default=True,
    metavar="auto|window:LOW,HIGH",
    help="Scale of grey of more than 8 bits, one for the data set: that of the bits found, or a window.",
)
group_option = click.option(
    "--group",
    metavar="REGEX",
    help="Pictures of one part, lot or day stay together: found in the path below SRC; the first "
    "capturing group, or all that matches, names it.",
)
folder_option = click.option(
    "--group-by-folder", is_flag=True, help="The pictures of a folder stay together, as with --group."
)
test_goods_option = click.option(
    "--test-goods",
    type=float,
    metavar="SHARE",
    help="Share of the goods to test, 0.05 to 0.9, where no folder says which.  [default: 0.2]",
)
source_argument = click.argument("source", metavar="SRC", type=click.Path(path_type=Path))


@click.group()
def data() -> None:
    """Make, check, import and look at data sets."""


@data.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--category", "categories", multiple=True, help="Only this one. May be given again.")
@click.option("--size", default=256, show_default=True, help="Side of the pictures in pixels, up to 1024.")
@click.option("--train-good", default=60, show_default=True, help="Good pictures to train on, each category.")
@click.option("--test-good", default=30, show_default=True, help="Good pictures to test on, each category.")
@click.option("--defects", default=8, show_default=True, help="Abnormal pictures of each defect type.")
@click.option("--seed", default=0, show_default=True, help="Same seed, same files.")
@click.option(
    "--mvtec-names",
    is_flag=True,
    help="Under names of MVTec AD: bottle, hazelnut, carpet, grid, and their defect types.",
)
def synth(
    directory: Path,
    categories: tuple[str, ...],
    size: int,
    train_good: int,
    test_good: int,
    defects: int,
    seed: int,
    mvtec_names: bool,
) -> None:
    """Render defects with masks into real photographs, in the MVTec layout under DIRECTORY."""
    from defectbench.data.synthetic.scenes import AS_MVTEC, MVTEC_TYPES, SCENES
    from defectbench.data.synthetic.synth import synth as write
    from defectbench.errors import UsageError, nearest

    scenes = AS_MVTEC if mvtec_names else {name: name for name in SCENES}
    for name in categories:
        if name not in scenes:
            raise UsageError(f"unknown category {name!r}; {nearest(name, scenes)}")
    with progress_bar() as step:
        write(
            directory,
            categories={name: scenes[name] for name in categories or scenes},
            size=size,
            train_good=train_good,
            test_good=test_good,
            defects_per_type=defects,
            seed=seed,
            types=MVTEC_TYPES if mvtec_names else {},
            progress=step,
        )
    note(f"{directory} is ready: defectbench data import {directory} --name {directory.name}")


@data.command()
@source_argument
@layout_option
@links_option
@accept_option
@intensity_option
@group_option
@folder_option
@test_goods_option
@format_option
def check(
    source: Path,
    layout: str | None,
    follow_links: bool,
    accept_duplicates: bool,
    intensity: str,
    group: str | None,
    group_by_folder: bool,
    test_goods: float | None,
    form: str,
) -> None:
    """Validate SRC, a folder or a table of pictures; report all problems at once; import nothing."""
    from defectbench.data.check import check as find
    from defectbench.data.layouts import read_layout
    from defectbench.errors import DataError

    with progress_bar() as step:
        wishes = _wishes(group, group_by_folder, test_goods)
        reading = read_layout(source, layout, follow_links=follow_links, wishes=wishes)
        report = find(reading, step, intensity, accept_duplicates=accept_duplicates)
    if form == "json":
        print_json(
            {
                "layout": report.reading.layout,
                "problems": list(report.problems),
                "notes": list(report.notes),
                "intensity": report.intensity.text,
                "categories": _counts(report),
                "groups": _groups(report),
                "left_out": sorted(map(str, report.left_out)),
                "accepted_duplicates": [[str(file) for file in pair] for pair in report.accepted_duplicates],
                "files": _account(report),
            }
        )
    else:
        _print_counts(report)
    if report.problems:
        raise DataError(report.problems)


@data.command("import")
@source_argument
@store_option
@click.option("--name", help="What the store calls it.  [default: the folder's name]")
@layout_option
@links_option
@accept_option
@intensity_option
@group_option
@folder_option
@test_goods_option
@click.option(
    "--any-orientation",
    multiple=True,
    metavar="CATEGORY",
    help="Its parts come in any orientation: training rotates and mirrors them. May be given again.",
)
def import_(
    source: Path,
    store: str,
    name: str | None,
    layout: str | None,
    follow_links: bool,
    accept_duplicates: bool,
    intensity: str,
    group: str | None,
    group_by_folder: bool,
    test_goods: float | None,
    any_orientation: tuple[str, ...],
) -> None:
    """Check SRC and put it into the store; with any problem nothing is imported."""
    from defectbench.data.archive import import_dataset

    with progress_bar() as step:
        manifests = import_dataset(
            source,
            open_store(store),
            name=name,
            layout=layout,
            follow_links=follow_links,
            wishes=_wishes(group, group_by_folder, test_goods),
            accept_duplicates=accept_duplicates,
            intensity=intensity,
            any_orientation=any_orientation,
            progress=step,
            report=_print_counts,
        )
    many = "1 category" if len(manifests) == 1 else f"{len(manifests)} categories"
    note(f"imported {manifests[0].dataset} ({many}) into {store}")


def _wishes(group: str | None, group_by_folder: bool, test_goods: float | None) -> Wishes:
    from defectbench.data.layouts import Wishes
    from defectbench.data.layouts.grouping import make_grouping

    return Wishes(make_grouping(group, group_by_folder), test_goods)


@data.command("list")
@store_option
@format_option
def list_(store: str, form: str) -> None:
    """List the data sets of the store."""
    from defectbench.data.archive import list_categories, list_datasets
    from defectbench.errors import MissingInputError

    place = open_store(store)
    if place.local_path is not None and not place.local_path.is_dir():
        raise MissingInputError(
            f"{store}: no store there; name yours with --store, or make one: "
            f"defectbench data import SRC --store {store}"
        )
    found = [{"dataset": name, "categories": list_categories(place, name)} for name in list_datasets(place)]
    if form == "json":
        print_json(found)
    elif not found:
        note(f"{store}: no data set in it; import one: defectbench data import SRC --store {store}")
    else:
        print_table(
            ("dataset", "categories"), [(row["dataset"], ", ".join(row["categories"])) for row in found]
        )


@data.command()
@click.argument("dataset")
@store_option
@format_option
def show(dataset: str, store: str, form: str) -> None:
    """Show a data set's categories: counts, defect types, masks, sizes, digest, groups, what was declared."""
    from defectbench.data.archive import list_categories, load_manifest

    place = open_store(store)
    categories = list_categories(place, dataset)
    rows = [_summary(load_manifest(place, dataset, category)) for category in categories]
    if form == "json":
        print_json({"dataset": dataset, "categories": rows})
    else:
        _print_columns(rows, _COUNTED)
        _print_columns(rows, _DECLARED)
        for row in rows:
            if row["accepted_duplicates"]:
                note(f"{row['category']}: {row['accepted_duplicates']} accepted pairs of duplicates")


_COUNTED = (
    ("category", "category"),
    ("train_good", "train good"),
    ("test_good", "test good"),
    ("test_defective", "test defects"),
    ("train_defects", "learnt only"),
    ("uncertain", "uncertain"),
    ("groups", "groups"),
    ("masks", "masks"),
)
_DECLARED = (
    ("category", "category"),
    ("defect_types", "defect types"),
    ("sizes", "sizes"),
    ("intensity", "intensity"),
    ("any_orientation", "any orientation"),
    ("digest", "digest"),
)


def _print_columns(rows: list[dict[str, Any]], columns: tuple[tuple[str, str], ...]) -> None:
    """Print some columns, which fit into 80; the digest by its beginning."""
    print_table(
        tuple(title for _, title in columns),
        [[_words(row[key][:12] if key == "digest" else row[key]) for key, _ in columns] for row in rows],
    )


def _summary(manifest: Manifest) -> dict[str, Any]:
    from defectbench.data.orientation import comes_in_any_orientation

    defects = [image for image in manifest.labelled if image.label]
    sizes = sorted({(image.width, image.height) for image in manifest.images})
    return {
        "category": manifest.category,
        "train_good": len(manifest.train),
        "train_defects": len(manifest.train_defects),
        "test_good": len(manifest.labelled) - len(defects),
        "test_defective": len(defects),
        "defect_types": list(manifest.defect_types),
        "masks": sum(image.mask is not None for image in defects),
        "any_orientation": comes_in_any_orientation(manifest),
        "sizes": [f"{width}x{height}" for width, height in sizes],
        "groups": len({image.group for image in manifest.images} - {None}),
        "uncertain": len(manifest.uncertain),
        "intensity": manifest.intensity.text,
        "accepted_duplicates": len(manifest.accepted_duplicates),
        "digest": manifest.digest,
    }


def _words(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _print_counts(report: CheckReport) -> None:
    """Print what a check found, except its problems, which end the command."""
    from defectbench.data.sample_account import sample_account

    rows = _counts(report)
    if rows:
        print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    for line in _account_lines(report):
        note(line)
    for line in sample_account(report):
        note(line)
    for text in report.notes:
        note(f"note: {text}")


def _account_lines(report: CheckReport) -> Iterator[str]:
    """Yield what became of every file: one line of sums, one for each reason not to use some."""
    from defectbench.data.layouts.walk import listed

    account, root = report.reading.account, report.reading.root
    unused = sum(len(entry.files) for entry in account.unused)
    yield (
        f"layout {report.reading.layout}, {account.total} files: {account.pictures} pictures, "
        f"{account.masks} masks, {unused} not used"
    )
    for entry in account.unused:
        yield f"not used: {len(entry.files)} ({entry.why}; {listed(entry.files, root)})"


def _account(report: CheckReport) -> dict[str, Any]:
    """Return what became of every file; ``total`` is the sum."""
    from defectbench.data.layouts.walk import shown

    account, root = report.reading.account, report.reading.root
    return {
        "total": account.total,
        "pictures": account.pictures,
        "masks": account.masks,
        "not_used": [
            {
                "why": entry.why,
                "number": len(entry.files),
                "first": [shown(file.relative_to(root)) for file in entry.files[:3]],
            }
            for entry in account.unused
        ],
    }


def _counts(report: CheckReport) -> list[dict[str, Any]]:
    from defectbench.data.layouts.walk import shown

    return [
        {
            "category": counts.category,
            "train_good": counts.train_good,
            "train_defects": counts.train_defects,
            "test_good": counts.test_good,
            "defects": ", ".join(f"{shown(kind)} {number}" for kind, number in counts.defects.items()),
            "masks": counts.masks,
            "uncertain": counts.uncertain,
        }
        for counts in report.counts
    ]


def _groups(report: CheckReport) -> list[dict[str, Any]]:
    """Return the groups, by category and name."""
    found: dict[tuple[str, str], list[str]] = {}
    for source in (*report.reading.sources, *report.reading.uncertain):
        if source.file in report.groups:
            found.setdefault((source.category, report.groups[source.file]), []).append(str(source.file))
    return [
        {"category": category, "group": name, "files": files} for (category, name), files in found.items()
    ]
