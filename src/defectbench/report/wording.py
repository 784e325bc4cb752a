"""Figures and findings in words, the same on the page and on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from defectbench.tables.collect import Collected
from defectbench.tables.goods_curve import GoodsNeededRow
from defectbench.tables.learning_curve import CrossoverRow
from defectbench.tables.rows import ComparisonRow, ModelRow
from defectbench.tables.sample_size import SampleSizeRow

CAVEAT = (
    "Each verdict holds for this category's images; folds share training data, and no interval covers "
    "another line, camera or day."
)
NOTHING = "–"
_SHOWN = 3
_MINUS = "−"
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None, digits: int = 3) -> str:
    """Return a figure with fixed digits and a true minus sign; a dash where it is not defined.

    >>> number(-0.0525, 3), number(float("nan"))
    ('−0.052', '–')
    """
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.replace("-", _MINUS) if float(text) else text.lstrip("-")


def short_digests(text: str) -> str:
    """Return the text with each SHA-256 by its first twelve digits.

    >>> short_digests("pretrained (resnet18 " + "0123456789abcdef" * 4 + ")")
    'pretrained (resnet18 0123456789ab)'
    """
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", text)


def signed(value: float, digits: int = 3) -> str:
    """Return a difference with its sign.

    >>> signed(0.1), signed(-0.1), signed(0.0)
    ('+0.100', '−0.100', '0.000')
    """
    text = number(value, digits)
    return f"+{text}" if value > 0 and float(text) else text


def percent(value: float, digits: int = 1) -> str:
    """Return a share as a percentage.

    >>> percent(0.0525).split()
    ['5.2', '%']
    """
    return NOTHING if math.isnan(value) else f"{number(100 * value, digits)}\u00a0%"


def amount(value: float) -> str:
    """Return a large number with a decimal prefix.

    >>> amount(21_300_000), amount(950.0)
    ('21.3 M', '950')
    """
    if math.isnan(value):
        return NOTHING
    for size, unit in _UNITS:
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f}"


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(0.0123), duration(4.25), duration(125), duration(7500)
    ('12 ms', '4.2 s', '2 min 5 s', '2 h 5 min')
    """
    if math.isnan(seconds):
        return NOTHING
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def p_value(value: float) -> str:
    """Return a p-value with its relation.

    >>> p_value(0.00004).split(), p_value(0.042).split()
    (['p', '<', '0.001'], ['p', '=', '0.042'])
    """
    return "p\u00a0<\u00a00.001" if value < 0.001 else f"p\u00a0=\u00a0{number(value)}"


def capital(text: str) -> str:
    """Return the text with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]


def finding(row: ComparisonRow, endpoint: str, margin: float) -> str:
    """Return one sentence about the two contenders on a category."""
    names = {"classifier": (row.classifier, row.detector), "detector": (row.detector, row.classifier)}
    values = (row.classifier_value, row.detector_value)
    if row.verdict in ("classifier", "detector"):
        first, second = names[row.verdict]
        values = values if row.verdict == "classifier" else values[::-1]
        verdict = f"the {row.verdict} {first} is better than {second}"
    elif row.verdict == "equivalent":
        verdict = f"{row.classifier} and {row.detector} are equivalent within ±{margin:g}"
    else:
        verdict = f"it is undecided between the classifier {row.classifier} and the detector {row.detector}"
    return (
        f"On {row.category} {verdict}: {endpoint} {number(values[0])} against "
        f"{number(values[1])}, classifier minus detector {signed(row.difference)} "
        f"(95\u00a0% interval {signed(row.low)} to {signed(row.high)}; {p_value(row.corrected)}, corrected)."
    )


def crossing(row: CrossoverRow) -> str:
    """Return one sentence about from how many labelled defects on a classifier suffices."""
    if math.isinf(row.n):
        condition = f"no number of labelled defects tested (up to {row.tested[-1]}) makes"
    else:
        condition = f"{row.n:g} labelled {'defect makes' if row.n == 1 else 'defects make'}"
    return (
        f"On {row.category} {condition} {row.classifier} as good as {row.detector} within {row.margin:g} "
        f"(crossover {row.text}, 95\u00a0% interval {row.interval})."
    )


def goods_needed(row: GoodsNeededRow) -> str:
    """Return one sentence about how many good pictures one model needs."""
    whole = f"as good as with all {row.all_goods}, within {row.margin:g}"
    if math.isinf(row.n):
        found = f"no number of goods tested (up to {row.tested[-1]}) is surely enough for {row.label} to be"
        found = f"{found} {whole}"
    else:
        few = " or fewer" if row.n == row.tested[0] else ""
        found = f"{row.n:g} goods{few} are enough for {row.label} to be {whole}"
    return f"On {row.category} {found} ({row.text}, 95\u00a0% interval {row.interval})."


def sample_size(row: SampleSizeRow) -> str:
    """Return one sentence about how many labelled images would decide."""
    if math.isnan(row.need_defects):
        return "How many labelled images would decide cannot be estimated from these."
    return (
        f"About {row.need_goods:,.0f} goods and {row.need_defects:,.0f} defects would find a difference of "
        f"{row.margin:g} with {100 * row.power:.0f}\u00a0% power, were it the only category; "
        f"{row.goods} and {row.defects} were tested."
    )


def weights_lines(models: Sequence[ModelRow]) -> list[str]:
    """Say what weights the models started from."""
    of: dict[str, list[str]] = {}
    for model in models:
        of.setdefault(model.weights, []).append(model.label)
    sentences = {
        "none": "Random weights (weights: none): {}. Deep figures are not those of pretrained models.",
        "pretrained": "Pretrained weights: {}.",
        "file": "Weights from a file that the user gave: {}.",
        "not needed": "No weights needed: {}.",
    }
    lines = [sentences.get(kind, kind + ": {}.").format(", ".join(labels)) for kind, labels in of.items()]
    terms = {
        False: "Not for commercial use, by the licence of the weights: {}.",
        None: "Unknown whether for commercial use, check the licence of the weights: {}.",
    }
    for allowed, sentence in terms.items():
        if bound := [model.label for model in models if model.commercial is allowed]:
            lines.append(sentence.format(", ".join(bound)))
    return lines


def gaps(collected: Collected) -> list[str]:
    """Say what is missing, failed or damaged; empty where the sweep is whole."""
    failed, damaged = collected.failures, collected.damaged
    waiting = [key for key in collected.missing if key not in failed and key not in damaged]
    total = len(collected.record.cells)
    found = []
    for keys, state in ((waiting, "not finished yet"), (list(failed), "failed"), (list(damaged), "damaged")):
        if keys:
            found.append(f"{len(keys)} of {total} cells {state}: {_where(collected, keys)}.")
    reasons = list(dict.fromkeys(damaged.values()))
    if reasons:
        more = f"; and {len(reasons) - _SHOWN} more, under Cells" if len(reasons) > _SHOWN else ""
        found[-1] += f" {capital('; '.join(reasons[:_SHOWN]))}{more}."
    return found


def _where(collected: Collected, keys: Sequence[str]) -> str:
    """Name the models and categories of some cells."""
    wanted = set(keys)
    places = dict.fromkeys(
        f"{reading.label} on {collected.record.cells[reading.cell]}"
        for reading in collected.record.readings
        if reading.cell in wanted
    )
    names = list(places)
    rest = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + rest
