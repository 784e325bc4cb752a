"""An answer in plain words, the same on the page and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from defectbench.tables.answers import CategoryAnswer, OperatingPoint, Share

_WEAK = 0.5
"""A model that may find no more than this share of the defects is no use on a line."""


def sentences(
    answer: CategoryAnswer, defect_rate: float | None, requirement: Mapping[str, float] | None
) -> Iterator[str]:
    """Yield the answer's sentences, the most important first."""
    best = answer.best
    if requirement is not None:
        yield _requirement(answer, requirement)
    yield _choice(answer)
    for point in (best,) if best is not None else answer.points:
        yield _point(point)
        if not point.kept:
            yield (
                f"It cannot be used with that threshold: {100 * point.false_alarms.low:.0f} false alarms in "
                f"100 or more, {100 * point.promised:.3g} were promised. The good parts that are tested look "
                "otherwise than those that set it: take good parts of all kinds and days for it."
            )
        if len(point.types) > 1:
            yield _weakest(point.types)
    if best is not None:
        other = next(point for point in answer.points if point is not best)
        yield f"{_named(other)} finds {_of(other.recall)}."
    if defect_rate is not None:
        yield from _thousand(answer, defect_rate)
    yield from _next(answer)


def _choice(answer: CategoryAnswer) -> str:
    classifier, detector = answer.points
    ready = "" if answer.best is None or answer.best.kept else ", but not yet with its threshold"
    if answer.verdict == "classifier":
        return f"A classifier will do: take {classifier.label}{ready}."
    if answer.verdict == "detector":
        return f"A detector is needed: take {detector.label}{ready}."
    if answer.verdict == "equivalent":
        return f"Either will do: {classifier.label} and {detector.label} are equally good on these pictures."
    return f"These pictures do not say whether {classifier.label} or {detector.label} is better."


def _requirement(answer: CategoryAnswer, requirement: Mapping[str, float]) -> str:
    found = [
        f"{_named(point)} {point.met(requirement['recall'], requirement['false_alarm_rate'])}"
        for point in answer.points
    ]
    return (
        f"Required: find {100 * requirement['recall']:.3g} of 100 bad parts at no more than "
        f"{100 * requirement['false_alarm_rate']:.3g} false alarms in 100 good parts. {'; '.join(found)}."
    )


def _named(point: OperatingPoint) -> str:
    return f"The {point.family} {point.label}"


def _of(share: Share) -> str:
    """Say a share as so many of 100, with its interval and what it rests on."""
    return (
        f"{100 * share.value:.0f} of 100 ({100 * share.low:.0f} to {100 * share.high:.0f}; "
        f"{share.images} tested{f' in {share.groups} groups' if share.groups < share.images else ''})"
    )


def _weakest(types: Mapping[str, Share]) -> str:
    kind, share = min(types.items(), key=lambda item: (item[1].value, item[1].low))
    if share.value < 1:
        return f"Weakest on {kind}: it finds {_of(share)}."
    return f"It misses none of any type; least sure is {kind}: {_of(share)}."


def _point(point: OperatingPoint) -> str:
    return (
        f"{_named(point)}, its threshold set on good parts for {100 * point.promised:.3g} false alarms in "
        f"100, finds {_of(point.recall)} bad parts and stops {_of(point.false_alarms)} good ones."
    )


def _thousand(answer: CategoryAnswer, defect_rate: float) -> Iterator[str]:
    for point in (answer.best,) if answer.best is not None else answer.points:
        missed, stopped = point.per_thousand(defect_rate)
        yield (
            f"Of 1,000 parts, {1000 * defect_rate:.3g} of them bad, {point.label} lets {missed:.1f} bad ones "
            f"pass and stops {stopped:.0f} good ones."
        )


def _next(answer: CategoryAnswer) -> Iterator[str]:
    if all(point.recall.high < _WEAK for point in answer.points):
        yield (
            "Neither is usable yet: both let more than half of the bad parts pass. Look at the missed "
            "pictures: is the defect visible at this image size?"
        )
        return
    if answer.verdict == "equivalent":
        yield "Stop comparing: take the one that is easier to run."
        return
    more = answer.further()
    if more is not None and more[1] == 0:
        share = (answer.best or answer.points[0]).types[more[0]]
        if share.groups < share.images:
            why = f"these come from {share.groups} groups. Take parts of other groups (modules, lots, days)"
        else:
            why = "the fits differ by luck. Give more seeds"
        yield f"Next: more pictures like these tell little: {why}."
    elif more is not None:
        kind, number = more
        yield (
            f"Next: about {number} more picture{'s' if number > 1 else ''} of {kind} would tell the recall "
            "on it within 10 points."
        )
