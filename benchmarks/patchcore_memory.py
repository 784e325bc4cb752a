"""Peak memory and time of a PatchCore fit: WideResNet-50 features, coreset 10 %, random weights.

    python benchmarks/patchcore_memory.py [--images 200] [--size 256] [--limit-gb 4]
                                          [--anomalib-images N] [--cap-gb 12]

Each way runs in a process of its own; the peak is the resident set's, imports included. Ours goes the way of
every cell: pictures and features through the on-disk cache. With ``--anomalib-images`` anomalib's own loop
runs too, on that many images and within ``--cap-gb`` of address space. Ends with 1 when ours is over.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SECONDS_BETWEEN_LINES = 20.0


def pictures(number: int, size: int) -> NDArray[np.uint8]:
    """Return crops of three photographs, (number, size, size, 3), by turns."""
    from skimage import data

    photographs = (data.brick(), data.grass(), data.gravel())
    rng = np.random.default_rng(0)
    crops = []
    for index in range(number):
        photograph = photographs[index % len(photographs)]
        y, x = (int(rng.integers(0, side - size + 1)) for side in photograph.shape)
        crop = np.rot90(photograph[y : y + size, x : x + size], int(rng.integers(4)))
        crops.append(np.repeat(crop[..., None], 3, axis=2))
    return np.stack(crops)


def fit_ours(number: int, size: int) -> dict[str, float]:
    from PIL import Image as PILImage

    from defectbench import catalog
    from defectbench.data.manifest import Image, make_manifest
    from defectbench.models.base import ModelSettings, Progress, TrainingData
    from defectbench.models.choose import build_model
    from defectbench.models.pictures.images import ImageSet

    entry = catalog.find("patchcore")
    model_settings = ModelSettings(entry.settings, size, entry.epochs, entry.patience, seed=0, device="cpu")
    said = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal said
        if time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            print(f"  {progress.done} of {progress.total}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = []
        for index, picture in enumerate(pictures(number, size)):
            path = root / f"{index:04d}.png"
            PILImage.fromarray(picture).save(path)
            images.append(Image(path.stem, path.name, f"{index:064x}", "train", 0, "good", size, size))
        manifest = make_manifest("benchmark", "photographs", images)
        chosen = ImageSet(manifest, root, size, root / "cache").select([image.id for image in images])
        model = build_model(entry, model_settings)
        started = time.perf_counter()
        model.fit(TrainingData(chosen, np.zeros(number, np.int64)), report)
        fitted = time.perf_counter()
        score = next(iter(model.predict(chosen))).score
        scored = time.perf_counter()
    figures = {"fit_seconds": fitted - started, "seconds_an_image": scored - fitted, "score": score}
    return {**figures, "parameters": model.size().parameters, **_peak()}


def fit_anomalib(number: int, size: int, cap_gb: float) -> dict[str, float]:
    import torch

    resource.setrlimit(resource.RLIMIT_AS, (int(cap_gb * 1e9), int(cap_gb * 1e9)))
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(layers=["layer2", "layer3"], backbone="wide_resnet50_2", pre_trained=False).train()
    started = time.perf_counter()
    with torch.no_grad():
        for picture in pictures(number, size):
            model(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
        model.subsample_embedding(0.1)
    return {"fit_seconds": time.perf_counter() - started, **_peak()}


def _peak() -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_gb": peak * (1 if sys.platform == "darwin" else 1024) / 1e9}


def _apart(way: str, arguments: argparse.Namespace, number: int) -> dict[str, float] | None:
    command = [sys.executable, __file__, "--way", way, "--images", str(number), "--size", str(arguments.size)]
    ended = subprocess.run([*command, "--cap-gb", str(arguments.cap_gb)], stdout=subprocess.PIPE, check=False)
    if ended.returncode:
        print(f"{way}, {number} images: ended with {ended.returncode}, out of memory or killed")
        return None
    figures: dict[str, float] = json.loads(ended.stdout)
    shown = ", ".join(f"{name} {value:,.2f}" for name, value in figures.items())
    print(f"{way}, {number} images of {arguments.size} px: {shown}", flush=True)
    return figures


def main() -> int:
    """Run the ways that were asked for and print what they cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--limit-gb", type=float, default=4.0)
    parser.add_argument("--anomalib-images", type=int, default=0)
    parser.add_argument("--cap-gb", type=float, default=12.0)
    parser.add_argument("--way", choices=("ours", "anomalib"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way == "ours":
        print(json.dumps(fit_ours(arguments.images, arguments.size)))
        return 0
    if arguments.way == "anomalib":
        print(json.dumps(fit_anomalib(arguments.images, arguments.size, arguments.cap_gb)))
        return 0
    print(f"{platform.platform()}, Python {platform.python_version()}")
    ours = _apart("ours", arguments, arguments.images)
    if arguments.anomalib_images:
        _apart("anomalib", arguments, arguments.anomalib_images)
    within = ours is not None and ours["peak_gb"] < arguments.limit_gb
    print(f"peak {'under' if within else 'NOT under'} {arguments.limit_gb} GB")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
