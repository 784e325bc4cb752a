import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM

import small_models
from defectbench import catalog
from defectbench.models.base import ModelSettings
from defectbench.models.classifiers.gradcam import Explainer, TargetLayer, target_of
from defectbench.models.features import backbone
from small_models import DINO, SWIN

pytestmark = pytest.mark.torch

SIDE = 64
NAMES = sorted(
    {
        str({**entry.settings, **small_models.changes(entry)}["architecture"])
        for entry in catalog.ENTRIES
        if "architecture" in entry.settings
    }
    | {"test_efficientnet", "swin_tiny_patch4_window7_224"}
)


def side(name: str) -> int:
    return 56 if name == DINO else SIDE


def network(name: str) -> torch.nn.Module:
    model_settings = ModelSettings({}, side(name), epochs=0, patience=0, seed=0, device="cpu")
    return backbone.create(name, model_settings, outputs=1)


def by_hand(model: torch.nn.Module, target: TargetLayer, inputs: torch.Tensor) -> np.ndarray:
    """Grad-CAM as its paper has it: ReLU of the activations weighted by the logit's mean gradients."""
    kept: list[torch.Tensor] = []
    hook = target.layer.register_forward_hook(lambda *passed: kept.append(passed[2]))
    logit = model(inputs)[0, 0]
    hook.remove()
    [gradient] = torch.autograd.grad(logit, kept[0])
    values = kept[0]
    match type(model).__name__:
        case "SwinTransformerV2" | "SwinTransformer":
            gradient, values = (torch.einsum("bhwc->bchw", of) for of in (gradient, values))
        case "VisionTransformer":
            rows = side(DINO) // 14
            gradient, values = (
                torch.stack([of[:, 1 + r * rows : 1 + (r + 1) * rows] for r in range(rows)], 1)
                for of in (gradient, values)
            )
            gradient, values = (torch.einsum("bhwc->bchw", of) for of in (gradient, values))
    weighted = (gradient.mean((2, 3), keepdim=True) * values).sum(1)
    return torch.relu(weighted)[0].detach().numpy()


@pytest.mark.parametrize("name", NAMES)
def test_map_is_the_papers_before_any_scaling(name: str) -> None:
    inputs = torch.randn(1, 3, side(name), side(name), generator=torch.Generator().manual_seed(1))
    model = network(name)
    expected = by_hand(model, target_of(model), inputs)
    prediction = Explainer(model)(inputs)
    assert expected.max() > 0 or name not in (SWIN, DINO), "an empty map shows nothing"
    np.testing.assert_allclose(prediction.heat_map, expected, rtol=1e-3, atol=1e-6 * max(1, expected.max()))
    assert prediction.score == pytest.approx(float(model(inputs)[0, 0]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_target_is_a_map_of_the_picture_that_the_logit_depends_on(name: str) -> None:
    model = network(name)
    target = target_of(model)
    shapes: list[torch.Size] = []
    bring = target.as_map or (lambda values: values)
    target.layer.register_forward_hook(lambda *passed: shapes.append(bring(passed[2]).shape))
    channels = model.num_features if name.startswith(("tiny_vit", "swin", "vit")) else None
    model(torch.zeros(1, 3, side(name), side(name)))
    assert len(shapes[0]) == 4
    assert shapes[0][2] == shapes[0][3] == (4 if name == DINO else 2)
    assert channels is None or shapes[0][1] == channels


@pytest.mark.parametrize("name", [SWIN, DINO])
def test_map_lies_the_way_the_picture_does(name: str) -> None:
    """A layer's rows are the picture's: what changes above changes the map's upper part most."""
    model = network(name)
    target = target_of(model)
    kept: list[torch.Tensor] = []
    assert target.as_map is not None
    bring = target.as_map
    target.layer.register_forward_hook(lambda *passed: kept.append(bring(passed[2])))
    length = side(name)
    plain = torch.randn(1, 3, length, length, generator=torch.Generator().manual_seed(3))
    for place in (np.s_[..., : length // 4, :], np.s_[..., : length // 4]):
        changed = plain.clone()
        changed[place] += 2
        kept.clear()
        with torch.no_grad():
            model(plain), model(changed)
        moved = (kept[1] - kept[0]).abs().mean(1)[0]
        along = 1 if place[1] == np.s_[: length // 4] and len(place) == 3 else 0
        assert int(moved.mean(along).argmax()) == 0


def test_map_is_the_librarys_up_to_its_scaling() -> None:
    inputs = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    plain, ours = network("test_efficientnet"), network("test_efficientnet")
    with GradCAM(plain, [target_of(plain).layer]) as library:
        [theirs] = library(inputs, targets=[lambda output: output[0]])
    raw = torch.from_numpy(Explainer(ours)(inputs).heat_map)
    assert raw.max() > 0
    scaled = torch.nn.functional.interpolate(raw[None, None], (SIDE, SIDE), mode="bilinear")[0, 0].numpy()
    assert np.corrcoef(scaled.ravel(), theirs.ravel())[0, 1] > 0.95


def test_maps_of_one_picture_do_not_depend_on_the_last_one() -> None:
    explain = Explainer(network("test_efficientnet"))
    first, second = (torch.randn(1, 3, SIDE, SIDE) for _ in range(2))
    before = explain(first)
    explain(second)
    after = explain(first)
    assert before.score == after.score
    assert np.array_equal(before.heat_map, after.heat_map)
