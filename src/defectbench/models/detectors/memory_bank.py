"""PaDiM and PatchCore on anomalib's torch models: frozen features, one pass, raw scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from defectbench.errors import BugError, DataError, UsageError
from defectbench.models.base import (
    FitCallback,
    Model,
    ModelSettings,
    ModelSize,
    Pictures,
    Prediction,
    Progress,
    TrainingData,
    check_goods,
)
from defectbench.models.detectors.anomalib_models import padim, patchcore, replaced
from defectbench.models.detectors.frozen_backbone import FrozenFeatures
from defectbench.models.features import backbone, coreset, device
from defectbench.models.features.feature_maps import FeatureMaps

_COVARIANCE_NEEDS = 2


class _MemoryBankDetector(Model):
    """What both share: a backbone that is never trained, and fitted tensors beside it.

    The file holds the fitted tensors alone: the backbone is rebuilt from the settings' weights or seed.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.device = device.resolve(settings.device)
        self._built: Any = None
        self._state: dict[str, Tensor] = {}

    @abstractmethod
    def _build(self) -> tuple[Any, FrozenFeatures]:
        """Return anomalib's model and the features that it is fed."""

    @abstractmethod
    def _score(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score (1,) and the map (1, 1, size, size) of one embedding."""

    def _model(self) -> Any:
        """Return anomalib's model."""
        return self._parts()[0]

    def _features(self) -> FrozenFeatures:
        """Return the features of the frozen backbone."""
        features: FrozenFeatures = self._parts()[1]
        return features

    def _parts(self) -> tuple[Any, FrozenFeatures]:
        """Return both, built on first use."""
        if self._built is None:
            self._built = self._build()
        parts: tuple[Any, FrozenFeatures] = self._built
        return parts

    @abstractmethod
    def _embeddings(self, pictures: Pictures) -> Iterator[Tensor]:
        """Yield each picture's embedding, (1, channels, h, w)."""

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield score and map as anomalib's model gives them in eval mode, at the pictures' size."""
        self._fitted()
        for embedding in self._embeddings(pictures):
            with torch.no_grad():
                score, heat_map = self._score(embedding)
            yield Prediction(float(score[0]), heat_map[0, 0].cpu().numpy().astype(np.float32))

    def _fitted(self) -> dict[str, Tensor]:
        """Return the fitted tensors; BugError before a fit or a load."""
        if not self._state:
            raise BugError(f"{type(self).__name__} was asked for results before fit or load")
        return self._state

    def save(self, path: Path) -> None:
        """Write the fitted tensors as safetensors."""
        save_file({name: value.cpu().contiguous() for name, value in self._fitted().items()}, path)

    def load(self, path: Path) -> None:
        """Read the fitted tensors."""
        self.load_trained_state(load_file(path, device=self.device))

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Hold the fitted tensors, laid out in one way: a product's rounding depends on the layout."""
        self._state = {name: value.contiguous().clone() for name, value in state.items()}


class Padim(_MemoryBankDetector):
    """PaDiM: at each place a Gaussian over a fixed random choice of features (Defard et al. 2020).

    Settings: ``backbone`` (timm's name), ``layers``, ``features`` (how many are chosen, by the seed).
    """

    def _build(self) -> tuple[Any, FrozenFeatures]:
        """Return PaDiM with the seed's choice of features, drawn by numpy."""
        settings = self.settings
        network = backbone.create(settings.text("backbone"), settings)
        layers = list(settings.texts("layers"))
        maps = FeatureMaps(network, layers)
        with (
            device.repeatable(settings.seed, self.device),
            replaced(padim, "TimmFeatureExtractor", lambda **_: maps),
        ):
            model: Any = padim.PadimModel(
                backbone=settings.text("backbone"), layers=layers, n_features=settings.whole("features")
            )
        # anomalib draws with Python's generator, which nothing here seeds; so numpy draws again.
        drawn = np.random.default_rng(settings.seed).permutation(model.n_features_original)[
            : model.n_features
        ]
        model.idx = torch.from_numpy(np.sort(drawn))
        chosen = _by_layer(model.idx, layers, maps.out_dims)
        kind = f"padim-{settings.whole('features')}-of-{model.n_features_original}-seed-{settings.seed}"
        features = FrozenFeatures(network, maps, settings, self.device, kind, chosen=chosen)
        return model.to(self.device).eval(), features

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Estimate each place's mean and covariance; needs two pictures."""
        check_goods(training)
        total = len(training.pictures)
        if total < _COVARIANCE_NEEDS:
            raise DataError(f"{total} training picture: a covariance needs at least {_COVARIANCE_NEEDS}")
        held: Tensor | None = None
        for index, embedding in enumerate(self._embeddings(training.pictures)):
            if held is None:
                held = torch.empty((total, *embedding.shape[1:]), device=self.device)
            held[index] = embedding[0]
            report(Progress(index + 1, total))
        with torch.no_grad():
            mean, inverse = self._model().gaussian.fit(held)
        self.load_trained_state({"mean": mean, "inv_covariance": inverse})

    def _embeddings(self, pictures: Pictures) -> Iterator[Tensor]:
        """Yield the layers' maps side by side, at the first layer's grid."""
        for maps in self._features().of(pictures):
            first, *others = maps.values()
            grown = [functional.interpolate(o, size=first.shape[-2:], mode="nearest") for o in others]
            yield torch.cat([first, *grown], 1)

    def _score(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest Mahalanobis distance, and the map of them."""
        model, side = self._model(), self.settings.image_size
        state = self._fitted()
        heat_map = model.anomaly_map_generator(
            embedding=embedding,
            mean=state["mean"],
            inv_covariance=state["inv_covariance"],
            image_size=(side, side),
        )
        return torch.amax(heat_map, dim=(-2, -1))[:, 0], heat_map

    def size(self) -> ModelSize:
        """Count the backbone's and the Gaussians' numbers; operations of backbone and distances."""
        mean = self._fitted()["mean"]
        channels, places = mean.shape
        fitted = sum(value.numel() for value in self._state.values())
        distances = 2 * places * channels * (channels + 1)
        return ModelSize(
            backbone.count(self._model().feature_extractor) + fitted,
            self._features().flops(self.settings.image_size) + distances,
        )


def _by_layer(index: Tensor, layers: list[str], widths: Sequence[int]) -> dict[str, Tensor]:
    """Return for each layer which of its channels are chosen; ``index`` counts through all layers."""
    chosen, start = {}, 0
    for layer, width in zip(layers, widths, strict=True):
        chosen[layer] = index[(index >= start) & (index < start + width)] - start
        start += width
    return chosen


class Patchcore(_MemoryBankDetector):
    """PatchCore: distance to a coreset of good patches, re-weighted by its neighbourhood (Roth et al. 2021).

    The training patches are read twice from the cache, once projected for the coreset, once for those that
    it chose: never are all of them in memory.

    Settings: ``backbone`` (timm's name), ``layers``, ``coreset`` (share of the patches that is kept),
    ``neighbours`` (of the re-weighting; 1 switches it off).
    """

    def _build(self) -> tuple[Any, FrozenFeatures]:
        """Return PatchCore; the pooling of 3 x 3 places is a part of the cached features."""
        settings = self.settings
        network = backbone.create(settings.text("backbone"), settings)
        maps = FeatureMaps(network, settings.texts("layers"))
        with replaced(patchcore, "TimmFeatureExtractor", lambda **_: maps):
            model: Any = patchcore.PatchcoreModel(
                layers=list(settings.texts("layers")),
                backbone=settings.text("backbone"),
                num_neighbors=settings.whole("neighbours"),
            )
        pool = model.feature_pooler
        features = FrozenFeatures(network, maps, settings, self.device, "pooled-3x3", after=pool)
        return model.to(self.device).eval(), features

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Keep the coreset of the training patches."""
        check_goods(training)
        share = self.settings.number("coreset")
        if not 0 < share <= 1:
            raise UsageError(f"setting coreset: {share!r}; a share above 0 and up to 1 is allowed")
        pictures = training.pictures
        points = self._projected(pictures, report)
        count = max(1, int(len(points) * share))
        steps = 2 * len(pictures) + count
        chosen = coreset.k_centres(
            points,
            count,
            self.settings.seed,
            self.device,
            lambda done: report(Progress(len(pictures) + done, steps)),
        )
        per_picture = len(points) // len(pictures)
        del points
        bank = self._rows(pictures, chosen, per_picture, report)
        self.load_trained_state({"memory_bank": bank})

    def _projected(self, pictures: Pictures, report: FitCallback) -> NDArray[np.int16]:
        """Return all training patches, projected and on the coreset's grid."""
        matrix: Tensor | None = None
        held: NDArray[np.float32] | None = None
        for index, embedding in enumerate(self._embeddings(pictures)):
            rows = self._model().reshape_embedding(embedding)
            if held is None:
                total = len(rows) * len(pictures)
                drawn = coreset.projection(total, rows.shape[1], self.settings.seed)
                matrix = None if drawn is None else torch.from_numpy(drawn).to(self.device)
                held = np.empty((total, rows.shape[1] if drawn is None else drawn.shape[1]), np.float32)
            narrow = rows if matrix is None else rows @ matrix
            held[index * len(rows) : (index + 1) * len(rows)] = narrow.cpu().numpy()
            report(Progress(index, len(pictures)))
        if held is None:
            raise BugError("no picture gave features")
        return coreset.on_grid(held)

    def _rows(
        self, pictures: Pictures, chosen: NDArray[np.int64], per_picture: int, report: FitCallback
    ) -> Tensor:
        """Return the chosen patches in the order of the choice, (count, channels)."""
        bank: Tensor | None = None
        for index, embedding in enumerate(self._embeddings(pictures)):
            rows = self._model().reshape_embedding(embedding)
            if bank is None:
                bank = torch.empty((len(chosen), rows.shape[1]), device=self.device)
            places = np.flatnonzero(chosen // per_picture == index)
            # In the order of the choice: the bank's layout decides the last bit of a product.
            bank[torch.from_numpy(places)] = rows[torch.from_numpy(chosen[places] % per_picture)]
            report(Progress(len(pictures) + len(chosen) + index + 1, 2 * len(pictures) + len(chosen)))
        if bank is None:
            raise BugError("no picture gave features")
        return bank

    def _embeddings(self, pictures: Pictures) -> Iterator[Tensor]:
        """Yield the layers' maps side by side, as anomalib puts them together."""
        for maps in self._features().of(pictures):
            yield self._model().generate_embedding(maps)

    def _score(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return the re-weighted score, and the map of the nearest distances."""
        model, side = self._model(), self.settings.image_size
        _, _, height, width = embedding.shape
        rows = model.reshape_embedding(embedding)
        distances, nearest = model.nearest_neighbors(embedding=rows, n_neighbors=1)
        score = model.compute_anomaly_score(distances.view(1, -1), nearest.view(1, -1), rows)
        return score, model.anomaly_map_generator(distances.view(1, 1, height, width), (side, side))

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Hold the bank, and give it to anomalib's model."""
        super().load_trained_state(state)
        self._model().memory_bank = self._state["memory_bank"]

    def size(self) -> ModelSize:
        """Count the backbone's and the bank's numbers; operations of the backbone and of the search."""
        bank = self._fitted()["memory_bank"]
        side = self.settings.image_size
        search = 2 * bank.numel() * self._features().places
        return ModelSize(
            backbone.count(self._model().feature_extractor) + bank.numel(),
            self._features().flops(side) + search,
        )
