import numpy as np
import pytest
import timm
import torch
from pytorch_grad_cam import GradCAM

from defectbench import catalog
from defectbench.inspectors.gradcam import Explainer, target_layer

pytestmark = pytest.mark.torch

SIDE = 64
NAMES = [
    *(str(entry.settings["architecture"]) for entry in catalog.ENTRIES if "architecture" in entry.settings),
    "test_efficientnet",
    "test_convnext",
]


def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, num_classes=1).eval()


def by_hand(model: torch.nn.Module, layer: torch.nn.Module, inputs: torch.Tensor) -> np.ndarray:
    """Grad-CAM as its paper has it: ReLU of the activations weighted by the logit's mean gradients."""
    kept: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda *passed: kept.append(passed[2]))
    logit = model(inputs)[0, 0]
    hook.remove()
    [gradient] = torch.autograd.grad(logit, kept[0])
    weighted = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)
    return torch.relu(weighted)[0].detach().numpy()


@pytest.mark.parametrize("name", NAMES)
def test_map_is_the_papers_before_any_scaling(name: str) -> None:
    inputs = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    model = network(name)
    expected = by_hand(model, target_layer(model), inputs)
    inspection = Explainer(model)(inputs)
    np.testing.assert_allclose(inspection.heat_map, expected, rtol=1e-3, atol=1e-6 * max(1, expected.max()))
    assert inspection.score == pytest.approx(float(model(inputs)[0, 0]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_target_layer_has_a_spatial_grid(name: str) -> None:
    model = network(name)
    shapes: list[torch.Size] = []
    target_layer(model).register_forward_hook(lambda *passed: shapes.append(passed[2].shape))
    channels = model.num_features if name.startswith("tiny_vit") else None
    model(torch.zeros(1, 3, SIDE, SIDE))
    assert len(shapes[0]) == 4
    assert shapes[0][2] == shapes[0][3] == 2
    assert channels is None or shapes[0][1] == channels


def test_map_is_the_librarys_up_to_its_scaling() -> None:
    inputs = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    plain, ours = network("test_efficientnet"), network("test_efficientnet")
    with GradCAM(plain, [target_layer(plain)]) as library:
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
