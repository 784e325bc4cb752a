"""The report: one page that needs nothing but itself, its tables as CSV and Parquet, its figures as SVG."""

from __future__ import annotations

import base64
import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from defectbench.data.shortcut import SUSPICIOUS
from defectbench.errors import NoRightsError, TryAgainError, UsageError
from defectbench.metrics.image import METRICS
from defectbench.protocols.choose import PRIMARY, describe
from defectbench.report import wording
from defectbench.report.evidence import Evidence, MapComparison, MistakePanels
from defectbench.report.figures import Figures
from defectbench.stores.base import Store
from defectbench.tables.answers import CategoryAnswer, answers
from defectbench.tables.breakdown import BreakdownRow, breakdowns
from defectbench.tables.collect import EXPLANATION_COLUMNS, Collected, collect, write_views
from defectbench.tables.cost import COSTS
from defectbench.tables.files import as_files
from defectbench.tables.matched import matched_pairs
from defectbench.tables.matrices import Matrix, matrices
from defectbench.tables.plain_words import sentences
from defectbench.tables.published import PublishedRow, published
from defectbench.tables.rows import (
    ConditionRow,
    ExplanationRow,
    MistakeRow,
    ReferenceRow,
    ScoreRow,
    ThresholdRow,
)
from defectbench.tables.tables import EXPLANATION, FILES, Tables
from defectbench.tables.thresholds import CALLS
from defectbench.util.files import disk_errors

log = logging.getLogger(__name__)

PAGE = "index.html"
MARK = "<!-- defectbench report -->"
"""In every page of ours, so that no other folder is ever overwritten."""

_OURS = frozenset({PAGE, "tables", "figures"})
_OF_PAGE = ("published", "breakdowns")
"""Tables that the page makes, beside those of the sweep."""
_RULES: Mapping[str, str] = {
    "calibrated": "A quantile of the calibration goods, which no fit saw. A factory can do the same.",
    "tuned": "Best F1 on the tuning fold, which needs labelled defects.",
}


def write_report(store: Store, name: str, out: Path, cache: Path, *, now: datetime | None = None) -> Path:
    """Write the report of a sweep and return the path of its page.

    ``out`` gets ``index.html``, its tables in ``tables`` and its figures in ``figures``. The page needs
    neither. An older report there is replaced when the new one is whole. A partial sweep gives a partial
    report.

    Args:
        out: a new or empty folder, or that of an older report.
        cache: folder of this machine where archives are unpacked.
        now: the time that the page states; by default the clock's.

    Raises:
        MissingInputError: the store knows no such sweep.
        UsageError: ``out`` holds something else.
        TryAgainError: the disk is full or read-only.
    """
    with disk_errors(out):
        _check(out)
    collected = collect(store, name)
    _write_views(store, collected)
    report = Report(Tables(collected), Evidence(collected, store, cache), now or datetime.now(UTC))
    with disk_errors(out), _replacing(out) as folder:
        _write(folder / PAGE, report.html().encode())
        for file, content in report.files():
            _write(folder / "tables" / file, content)
        for drawing in report.figures:
            _write(folder / "figures" / f"{drawing.name}.svg", drawing.file().encode())
    return out / PAGE


def _write_views(store: Store, collected: Collected) -> None:
    """Put the views into the store; a store that cannot be written still gets its page."""
    try:
        write_views(store, collected)
    except (TryAgainError, NoRightsError) as error:
        log.warning("views.parquet is not written: %s", error)


class Report:
    """What the page's template asks for; it only lays out, everything is computed by the tables."""

    def __init__(self, tables: Tables, evidence: Evidence, now: datetime) -> None:
        self.tables, self.evidence, self.now = tables, evidence, now
        self.figures = Figures(tables)
        self.collected = tables.collected
        self.record = tables.collected.record

    def html(self) -> str:
        """Return the page."""
        environment = Environment(
            loader=PackageLoader("defectbench.report"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "number": wording.number,
            "signed": wording.signed,
            "percent": wording.percent,
            "amount": wording.amount,
            "duration": wording.duration,
            "capitalize_first": wording.capital,
            "short_digests": wording.short_digests,
        }
        script, style = (_part(file) for file in ("sort.js", "style.css"))
        return environment.get_template("page.html").render(
            report=self,
            tables=self.tables,
            record=self.record,
            wording=wording,
            metrics=METRICS,
            rules=_RULES,
            describe=describe,
            calls=CALLS,
            costs=COSTS,
            suspicious=SUSPICIOUS,
            explanation=EXPLANATION,
            breakdown=tuple(EXPLANATION_COLUMNS),
            mark=MARK,
            script=script,
            style=style,
            # The page's content security policy allows this script alone.
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )

    @cached_property
    def score_of(self) -> Mapping[tuple[str, str], ScoreRow]:
        """(model, category) -> its endpoint."""
        return {(score.label, score.category): score for score in self.tables.scores}

    @cached_property
    def answers(self) -> tuple[tuple[CategoryAnswer, tuple[str, ...]], ...]:
        """Each category's answer, and the sentences that say it."""
        rate, wanted = self.tables.defect_rate, self.tables.requirement
        return tuple((one, tuple(sentences(one, rate, wanted))) for one in answers(self.tables))

    @cached_property
    def undecidable(self) -> tuple[str, ...]:
        """Categories that no fold of both contenders has a result for yet."""
        compared = {row.category for row in self.tables.comparisons}
        return tuple(name for name, folds in self.tables.cuts.items() if folds and name not in compared)

    @cached_property
    def unsplit(self) -> Mapping[str, str]:
        """Category that detection cannot split -> why."""
        if not self.tables.scheme:
            return {}
        whole = [name for name, folds in self.tables.cuts.items() if not folds]
        return {name: self._why_unsplit(name) for name in whole}

    def _why_unsplit(self, category: str) -> str:
        """Return the notes of a category that detection cannot split."""
        own = [
            note.removeprefix(f"{category}: ")
            for note in self.record.notes
            if note.startswith(f"{category}: ")
        ]
        return "; ".join(note for note in own if PRIMARY in note) or f"{PRIMARY} cannot split its images"

    @cached_property
    def oracle_of(self) -> Mapping[tuple[str, str], ThresholdRow]:
        """(model, category) -> oracle."""
        return {(line.label, line.category): line for line in self.calls("oracle")}

    @cached_property
    def everything_of(self) -> Mapping[str, Mapping[str, ThresholdRow]]:
        """Family, empty where all are tested on the same images -> category -> calling all abnormal."""
        found: dict[str, dict[str, ThresholdRow]] = {}
        for line in self.calls("everything abnormal"):
            found.setdefault(line.family or "", {})[line.category] = line
        return found

    @cached_property
    def experiments(self) -> Mapping[str, list[ConditionRow]]:
        """Protocol -> its lines, for those beyond detection that have a result."""
        found: dict[str, list[ConditionRow]] = {}
        for line in self.tables.conditions:
            found.setdefault(line.protocol, []).append(line)
        return found

    @cached_property
    def has_rate(self) -> bool:
        """Whether the sweep sets a defect rate."""
        return self.tables.defect_rate is not None

    @cached_property
    def sizes(self) -> str:
        """The models' image sizes."""
        return ", ".join(f"{size} px" for size in sorted({model.image_size for model in self.tables.models}))

    @cached_property
    def versions(self) -> tuple[str, ...]:
        """Distinct sets of versions that cells ran with."""
        return tuple(dict.fromkeys(cell.versions for cell in self.tables.cells if cell.versions))

    def calls(self, rule: str) -> list[ThresholdRow]:
        """Return the lines of one rule."""
        return [line for line in self.tables.thresholds if line.rule == rule]

    def explained(self, category: str) -> list[ExplanationRow]:
        """Return the lines of one category."""
        return [line for line in self.tables.explanations if line.category == category]

    @cached_property
    def matched_contenders(self) -> bool:
        """Whether the two contenders share a backbone."""
        return self.record.contenders in matched_pairs(self.record.models)

    @cached_property
    def published(self) -> tuple[PublishedRow, ...]:
        """What others published on these categories."""
        return published(self.tables)

    @cached_property
    def breakdowns(self) -> tuple[BreakdownRow, ...]:
        """Where the heat maps fall, by the defect's type and size."""
        return breakdowns(self.tables, self.evidence.areas)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the tables as files: (name, content)."""
        yield from self.tables.files()
        yield from as_files("published", self.published, PublishedRow)
        yield from as_files("breakdowns", self.breakdowns, BreakdownRow)

    def broken_down(self, category: str) -> list[BreakdownRow]:
        """Return the breakdowns of one category for the models whose images are shown, group by group."""
        lines = [b for b in self.breakdowns if b.category == category and b.label in self.tables.shown]
        order = list(dict.fromkeys((line.by, line.group) for line in lines))
        return sorted(lines, key=lambda line: order.index((line.by, line.group)))

    def side_by_side(self, category: str) -> list[tuple[str, str, MapComparison]]:
        """Return (defect type, image, its panels): one held-out defect of each type, seen by both contenders.

        It is the one of middle area, so neither the best nor the worst is picked.
        """
        of = [self._tested_by(category, label) for label in self.tables.shown]
        areas = self.evidence.areas(category)
        kinds: dict[str, list[str]] = {}
        for name, (kind, _) in of[0].items():
            if name in areas and all(name in each for each in of):
                kinds.setdefault(kind, []).append(name)
        found = []
        for kind, names in sorted(kinds.items()):
            name = sorted(names, key=lambda each: (areas[each], each))[len(names) // 2]
            panels = self.evidence.pair(category, name, [each[name][1] for each in of])
            found += [(kind, name, panels)] if panels is not None else []
        return found

    def _tested_by(self, category: str, label: str) -> dict[str, tuple[str, str]]:
        """Return image -> (defect type, cell) of the first seed's tested defects."""
        folds = [f for f in self.tables.folds_of(category, label) if f.reading.seed == self.tables.seeds[0]]
        return {
            str(name): (str(kind), fold.reading.cell)
            for fold in folds
            for name, kind, bad in zip(
                fold.test.image_id, fold.test.defect_type, fold.test.label, strict=True
            )
            if bad
        }

    def matrices(self, category: str) -> list[Matrix]:
        """Return the matrices trained-on x tested-on of one category."""
        return [matrix for matrix in self._matrices if matrix.category == category]

    @cached_property
    def _matrices(self) -> tuple[Matrix, ...]:
        """All matrices of the unseen protocol."""
        return matrices(self.tables.unseen)

    def reference(self, category: str) -> ReferenceRow | None:
        """Return what a map that knows nothing would get; None where the masks cannot be had."""
        folds = self.collected.folds(protocol=PRIMARY, category=category)
        tested = dict.fromkeys(str(name) for fold in folds for name in fold.test.image_id)
        return self.evidence.reference(category, list(tested))

    def worst(self, category: str, label: str) -> list[tuple[MistakeRow, MistakePanels]]:
        """Return a contender's mistakes and what can be shown of them."""
        chosen = [m for m in self.tables.mistakes if (m.category, m.label) == (category, label)]
        return [(mistake, self.evidence.panels(mistake)) for mistake in chosen]

    def verdicts(self) -> list[tuple[str, list[str]]]:
        """Return (verdict, its categories), only those that occur."""
        order = ("classifier", "detector", "equivalent", "undecided")
        found = ((v, [row.category for row in self.tables.comparisons if row.verdict == v]) for v in order)
        return [(verdict, names) for verdict, names in found if names]

    def family(self, label: str) -> str:
        """Return a model's family."""
        return self.collected.model(label).family

    def cells_of(self) -> list[tuple[str, str, list[Any]]]:
        """Return (category, model, its cells), in the sweep's order."""
        groups: dict[tuple[str, str], list[Any]] = {}
        for cell in self.tables.cells:
            groups.setdefault((cell.category, cell.label), []).append(cell)
        places = self.record.categories
        order = sorted(groups, key=lambda group: (places.index(group[0]), self.tables.labels.index(group[1])))
        return [(category, label, groups[category, label]) for category, label in order]


def _part(name: str) -> str:
    """Return the text of a template's file."""
    return (resources.files("defectbench.report") / "templates" / name).read_text(encoding="utf-8")


def _check(out: Path) -> None:
    """Refuse a folder that is not ours to write over."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a folder")
    there = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    if not there:
        return
    page = out / PAGE
    if page.is_file():
        with page.open(encoding="utf-8", errors="replace") as file:
            ours = MARK in file.read(2000)
    else:
        # The page comes last: without it, what is there may be of a report that was killed on the way.
        ours = not page.exists() and _is_cut_off(out, there)
    if not ours or there - _OURS:
        other = sorted(there - _OURS) or [PAGE]
        raise UsageError(
            f"--out {out}: holds {other[0]}, which no report wrote; name a new or an empty folder"
        )


def _is_cut_off(out: Path, there: set[str]) -> bool:
    """Whether a folder holds all tables of a report, and no more than its figures: what a kill leaves.

    A folder of the user's that merely has such names is none: each moves in whole, the tables first.
    """
    wanted = {f"{name}.{kind}" for name in (*FILES, *_OF_PAGE) for kind in ("csv", "parquet")}
    if not there <= {"tables", "figures"} or any((out / name).is_symlink() for name in there):
        return False
    figures = (out / "figures").iterdir() if "figures" in there else ()
    tables = {path.name for path in (out / "tables").iterdir()} if "tables" in there else set()
    return tables == wanted and all(path.suffix == ".svg" for path in figures)


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Give an empty folder beside ``out``; its parts move there when the block ends, the page last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
        draft = Path(name) / "new"
        draft.mkdir()
        yield draft
        out.mkdir(exist_ok=True)
        # The page last: whoever opens it finds the tables and figures that belong to it.
        for part in ("tables", "figures", PAGE):
            if part != PAGE and (out / part).exists():
                (out / part).replace(Path(name) / f"old-{part}")
            if (draft / part).exists():
                (draft / part).replace(out / part)


def _write(path: Path, content: bytes) -> None:
    """Write a file and the folder above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
