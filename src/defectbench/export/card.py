"""The model card: what an exported model learnt from, how well it did, and what it promises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from defectbench.export.bundle import DOCUMENT, ONNX, Bundle
from defectbench.export.refit import FinishedCell
from defectbench.metrics.image import counts_at

_METRICS = {
    "image_auroc": "AUROC over the held-out pictures",
    "image_ap": "average precision",
    "f1_oracle": "best F1 over all thresholds, chosen on these very pictures: an upper bound",
    "pixel_auroc": "pixel AUROC, mean over the defects with a mask",
    "aupro": "AUPRO up to a false-positive rate of 0.3",
    "pointing": "share of defects whose hottest place lies in the mask",
}


def write_card(
    finished: FinishedCell, bundle: Bundle, sizes: Iterable[tuple[str, int]], remarks: Sequence[str] = ()
) -> str:
    """Return the text of the folder's README.md.

    Args:
        sizes: (path below the folder, bytes).
        remarks: what else is known of how it did, in sentences.
    """
    sections = {
        f"# {bundle.model} for {bundle.category}": _head(bundle),
        "## What it learnt from": _training(finished),
        "## How it did": chain(_results(finished, bundle), (f"- {remark}" for remark in remarks)),
        "## Threshold": _threshold(finished, bundle),
        "## Preprocessing": _preprocessing(bundle),
        "## Files": _files(bundle, sizes),
        "## Licences": _licences(finished),
        "## Limits": _limits(finished),
        "## Versions": _versions(bundle),
    }
    return "\n".join("\n".join((title, "", *lines, "")) for title, lines in sections.items())


def _head(bundle: Bundle) -> Iterator[str]:
    """Say what the folder holds, and how to use it."""
    scale = ", as log-odds" if bundle.family == "classifier" else ""
    yield (
        f"A {bundle.family}, exported by defectbench from its cell `{bundle.cell}`. It gives a picture a "
        f"score{scale} and a heat map; higher is more abnormal."
    )
    yield from ("", "```", "defectbench inspect THIS-FOLDER PICTURES --out overlays", "```")


def _training(finished: FinishedCell) -> Iterator[str]:
    """Say what the fit learnt from, and all that was unusual about it."""
    cell, fit, known = finished.cell, finished.cell.fit, finished.manifest.by_id
    labels = [label for _, label in fit.train]
    types = sorted({known[name].defect_type for name, label in fit.train if label})
    wrong = sum(label != known[name].label for name, label in fit.train)
    yield f"- data set `{cell.dataset}`, category `{cell.category}`, data digest `{fit.data_digest}`"
    named = f" ({', '.join(types)})" if types else ""
    yield f"- {labels.count(0)} pictures labelled good, {labels.count(1)} abnormal{named}"
    if wrong:
        yield f"- **{wrong} of those labelled good are defects**: a fit of the protocol `contamination`"
    yield f"- {len(fit.tune)} labelled pictures for stopping early; none of them counts below"
    defective = _defective(finished)
    yield f"- {len(fit.calibration) - defective} goods that it never saw, for the threshold"
    if defective:
        yield f"- **{defective} defects taken for such goods**: they are among what set the threshold"
    yield f"- weights before the fit: {_weights(finished)}"
    yield f"- seed {fit.seed}, at most {fit.epochs} epochs, balance `{fit.balance}`"
    usual = finished.entry.settings
    changed = [f"`{name}` {value}" for name, value in fit.settings.items() if usual.get(name) != value]
    yield f"- settings other than the catalog's: {', '.join(changed) or 'none'}"


def _defective(finished: FinishedCell) -> int:
    """Return how many defects lie among the calibration goods, as contamination puts them there."""
    known = finished.manifest.by_id
    return sum(known[name].label for name in finished.cell.fit.calibration)


def _weights(finished: FinishedCell) -> str:
    """Say which weights the fit began with."""
    fit = finished.cell.fit
    if fit.weights:
        return ", ".join(f"{name} (SHA-256 {digest})" for name, digest in fit.weights.items())
    return "random, from the seed" if finished.entry.weights else "the model has none"


def _results(finished: FinishedCell, bundle: Bundle) -> Iterator[str]:
    """Say how well the fit did on what it never saw."""
    rows, result = finished.predictions.of_role("held_out"), finished.result
    goods, defects = int((rows.label == 0).sum()), int((rows.label == 1).sum())
    yield f"One fit of one seed, on {goods} good and {defects} abnormal pictures without any influence on it:"
    yield ""
    for name, words in _METRICS.items():
        if name in result.metrics:
            yield f"- {result.metrics[name]:.4f} `{name}`: {words}"
    if bundle.threshold.value is not None:
        counts = counts_at(rows.label, rows.score, bundle.threshold.value)
        yield (
            f"- at the threshold below {counts.tp} of {defects} defects were found, and {counts.fp} of "
            f"{goods} goods called abnormal"
        )
    seconds = result.cost.get("inference_seconds_per_image")
    if seconds is not None:
        yield f"- {seconds:.3g} s a picture, on {result.device} with {bundle.threads} threads"


def _threshold(finished: FinishedCell, bundle: Bundle) -> Iterator[str]:
    """Say what the threshold promises, and what it does not."""
    threshold = bundle.threshold
    if threshold.value is None or threshold.false_alarm_rate is None:
        yield "None: the fit had no calibration goods. Scores can be ranked, not called."
        return
    defective = _defective(finished)
    parts = "parts" if defective else "good parts"
    yield f"Abnormal is what scores above **{threshold.value!r}**."
    yield ""
    yield (
        f"It was set for a false-alarm rate of {threshold.asked:.2%} on {threshold.goods} {parts} that the "
        f"fit never saw. A new one, like these, scores above it with a probability of "
        f"{threshold.false_alarm_rate:.2%} at most; rates are resolved in steps of 1/{threshold.goods + 1}. "
        "Nothing is promised about defects: how many are found is measured above."
    )
    if defective:
        yield ""
        yield (
            f"**{defective} of these parts are defects**: the promise is about such a mixture, and good "
            "parts alone score above it less often; fewer defects are found."
        )
    yield from ("", _observed(finished, threshold.value))
    if threshold.false_alarm_rate > threshold.asked:
        yield ""
        yield "**The goods are too few for the rate asked**: the smallest that they can keep is promised."
    yield ""
    yield "A threshold tuned on defects belongs to a sweep's view of several fits: see `defectbench report`."


def _observed(finished: FinishedCell, threshold: float) -> str:
    """Say how many false alarms were observed on the held-out goods."""
    rows = finished.predictions.of_role("held_out")
    counts = counts_at(rows.label, rows.score, threshold)
    if math.isnan(counts.false_alarm_rate):
        return "No good picture was held out: whether the promise is kept was not measured."
    return (
        f"Observed: {counts.fp} of {counts.fp + counts.tn} held-out goods ({counts.false_alarm_rate:.2%}) "
        "scored above it. Much more than promised means that these goods are not like those that set it: "
        "take new goods of the line before you rely on it."
    )


def _preprocessing(bundle: Bundle) -> Iterator[str]:
    """Say how a file becomes the model's input."""
    steps, side = bundle.preprocessing, bundle.image_size
    yield (
        f"`inspect` does all of it. A picture is rotated {steps['turned']}, read as {steps['colours']}, and "
        f"squashed to {side} x {side} px: {steps['resampling']}."
    )
    if "mean" in steps:
        yield (
            "The network is fed (value / 255 - mean) / deviation for red, green and blue: mean "
            f"{_numbers(steps['mean'])}, deviation {_numbers(steps['deviation'])}."
        )
    if bundle.proof.onnx_images is not None:
        yield ""
        yield (
            f"`{ONNX}` (opset {bundle.opset}) takes `picture`, uint8 (1, {side}, {side}, 3), RGB, already "
            "rotated and squashed; scaling, mean and deviation are in the graph. It gives `log_odds`, "
            "float32 (1,), and no heat map."
        )


def _numbers(values: Iterable[float]) -> str:
    """Return numbers in brackets, as few digits as they need."""
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _files(bundle: Bundle, sizes: Iterable[tuple[str, int]]) -> Iterator[str]:
    """Name the files, and how they were checked."""
    proof = bundle.proof
    for name, size in sizes:
        yield f"- `{name}`, {size:,} bytes"
    yield ""
    yield (
        f"Before this folder was written, the model in it scored the {proof.images} pictures that its cell "
        f"had scored: {proof.equal} scores were equal to the last bit, the largest difference was "
        f"{proof.largest_difference:.3g}, {proof.calls_changed} calls changed. `{DOCUMENT}` holds all "
        "numbers."
    )
    if proof.onnx_images is not None:
        yield (
            f"The graph's log-odds are within {proof.onnx_largest_difference:.2g} of the cell's on "
            f"{proof.onnx_images} of them (onnxruntime, CPU)."
        )


def _licences(finished: FinishedCell) -> Iterator[str]:
    """Say whose terms hold; what the catalog does not know is said too."""
    entry, known = finished.entry, {item.name: item.terms for item in finished.entry.weights}
    terms = {f"the model's code ({entry.source})": entry.licence}
    terms |= {
        f"the weights {name}": known.get(name, "not in the catalog: ask who made the file")
        for name in finished.cell.fit.weights
    }
    for what, licence in terms.items():
        yield f"- {what}: {licence}"
    yield (
        f"- the pictures of `{finished.cell.dataset}` that it learnt from: ask who made them. MVTec AD, for "
        "one, is CC BY-NC-SA 4.0, not for commercial use."
    )
    if finished.cell.fit.weights and not entry.commercial:
        yield "- **Not for commercial use**: a licence above says so."


def _limits(finished: FinishedCell) -> Iterator[str]:
    """Say what the figures do not cover."""
    yield "- The figures hold for pictures like these; none covers another line, camera, light or day."
    yield (
        "- This is one fit. How sure its sweep's comparison is, over all folds and seeds, `defectbench "
        "report` says."
    )
    if finished.cell.family != "detector":
        yield "- It knows the defects it was shown; the protocol `unseen` measures what it makes of others."
    if not len(finished.predictions.of_role("held_out")):
        yield "- Nothing was held out: nothing is known of its quality."


def _versions(bundle: Bundle) -> Iterator[str]:
    """Name what fitted the model."""
    made_with = ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
    yield f"Fitted on {bundle.device} with {made_with}."
