"""Heads: expectations in closed form, covariances that stay positive definite, published sizes."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from pose3d.geometry.skeleton import HUMAN36M_18
from pose3d.model.heads import CholeskyScale, DepthClassifier, IntegralHead, soft_argmax
from pose3d.model.regressor import ModelConfig, PoseDistribution, PoseRegressor

TINY = {"backbone": "resnet18", "width_multiplier": 0.125}
VARIANTS = [
    {"location_head": "plain"},
    {"depth_head": "classification", "depth_bins": 8},
    {"location_head": "plain", "depth_head": "classification", "scale_head": "cholesky"},
    {"location_head": "integral", "integral_width": 8, "depth_bins": 5},
    {"location_head": "integral", "integral_layers": 0, "depth_bins": 4, "scale_head": "cholesky"},
    {"scale_head": "cholesky"},
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(4)


@pytest.fixture(params=VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def model(request):
    torch.manual_seed(0)
    return PoseRegressor(ModelConfig(**TINY, **request.param), 6)


def test_every_head_answers_for_every_joint_and_learns(model, generator):
    pose = model(torch.randn(3, 3, 64, 64, generator=generator))
    assert pose.mean.shape == pose.scale.shape == (3, 6, 3)
    is_full = model.config.scale_head == "cholesky"
    assert (pose.scale_tril is not None) == is_full
    assert pose.spread is (pose.scale_tril if is_full else pose.scale)
    noise = torch.randn(pose.spread.shape, generator=generator)
    ((pose.mean - 0.1).square().sum() + (noise * pose.spread).sum()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    heads = [n for n in gradients if not n.startswith("backbone") and n.endswith("weight")]
    assert heads
    assert all(gradients[name].abs().max() > 0 for name in heads)


def test_every_head_stays_in_float32_and_finite_under_autocast(model, generator):
    """Also where logits are so large that a softmax in bf16 would be 0 / 0 or one-hot."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone"):
                parameter.mul_(300)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pose = model(torch.randn(2, 3, 64, 64, generator=generator))
    assert pose.mean.dtype == pose.spread.dtype == pose.feature.dtype == torch.float32
    assert not torch.equal(pose.mean, pose.mean.bfloat16().float())
    assert pose.mean.isfinite().all()
    (pose.mean.sum() + pose.spread.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_one_hot_volume_answers_with_the_mean_of_its_pixels():
    """Cell k of 8 columns over 32 pixels holds pixels 4k to 4k + 3; u of pixel x is x/32 − 1/2."""
    depth, row, column = 2, 1, 5
    logits = torch.full((1, 1, 5, 4, 8), -1e4)
    logits[0, 0, depth, row, column] = 1e4
    answer = soft_argmax(logits, crop_size_px=(24, 32))[0, 0]
    u = np.mean([x / 32 - 0.5 for x in range(20, 24)])
    v = np.mean([y / 24 - 0.5 for y in range(6, 12)])
    np.testing.assert_allclose(answer, [u, v, 0.0], atol=1e-7)


def test_expectation_of_a_gaussian_bump_is_its_centre():
    """A Gaussian of 1.5 cells on a lattice has its own mean to 1e-9 (Poisson summation)."""
    shape, centre = (24, 28, 32), (11.3, 15.8, 13.4)
    axes = [stats.norm.logpdf(np.arange(n), c, 1.5) for n, c in zip(shape, centre, strict=True)]
    logits = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    answer = soft_argmax(torch.from_numpy(logits)[None, None] + 40, crop_size_px=(112, 128))[0, 0]
    # Four pixels per cell, the first of which starts half a pixel before pixel 0.
    x, y = 4 * centre[2] + 1.5, 4 * centre[1] + 1.5
    expected = [x / 128 - 0.5, y / 112 - 0.5, (centre[0] + 0.5) / 24 - 0.5]
    np.testing.assert_allclose(answer, expected, atol=1e-8)


def test_mirrored_volume_has_the_mirrored_expectation(generator):
    logits = 3 * torch.randn(2, 18, 4, 6, 6, generator=generator, dtype=torch.float64)
    pose = soft_argmax(logits, crop_size_px=(48, 48))
    mirrored = soft_argmax(logits.flip(-1), crop_size_px=(48, 48))
    column = 48 * (pose[..., 0] + 0.5)
    torch.testing.assert_close(48 * (mirrored[..., 0] + 0.5), 47 - column)
    torch.testing.assert_close(mirrored[..., 1:], pose[..., 1:])


def test_classified_depth_is_the_expectation_over_bin_centres(generator):
    head = DepthClassifier(7, 3, num_bins=64)
    feature = torch.randn(5, 7, generator=generator)
    edges = np.linspace(-0.5, 0.5, 65)
    centres = (edges[1:] + edges[:-1]) / 2
    weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    logits = (feature.double().numpy() @ weight.T + bias).reshape(5, 3, 64)
    expected = (special.softmax(logits, axis=-1) * centres).sum(-1)
    np.testing.assert_allclose(head(feature).detach()[..., 0], expected, atol=1e-6)
    with torch.no_grad():
        head.bias.view(3, 64)[:, [0, 20, 63]] += 1e4 * torch.eye(3)
    np.testing.assert_allclose(head(feature).detach()[0, :, 0], centres[[0, 20, 63]], atol=1e-6)


@pytest.mark.parametrize("location_head", ["released", "plain"])
def test_classified_depth_leaves_u_and_v_to_the_location_head(location_head, generator):
    torch.manual_seed(1)
    settings = {"location_head": location_head, "depth_head": "classification"}
    model = PoseRegressor(ModelConfig(**TINY, **settings), 4).eval()
    pose = model(torch.randn(2, 3, 32, 32, generator=generator))
    feature = pose.feature.detach().double()
    if location_head == "released":
        feature = feature / feature.norm(dim=-1, keepdim=True)
    weight, bias = model.location_head.weight.double(), model.location_head.bias.double()
    expected = (feature @ weight.T + bias).view(2, 4, 2)
    torch.testing.assert_close(pose.mean[..., :2].double(), expected)
    torch.testing.assert_close(pose.mean[..., 2:], model.depth_head(pose.feature))


def written_out(raw: np.ndarray, floor: float) -> np.ndarray:
    factor = np.zeros((*raw.shape[:-1], 3, 3))
    size = floor + (1 - floor) * special.expit(raw[..., :3])
    for row, column, place in [(1, 0, 3), (2, 0, 4), (2, 1, 5)]:
        factor[..., row, column] = size[..., row] * raw[..., place]
    for axis in range(3):
        factor[..., axis, axis] = size[..., axis]
    return factor


def test_cholesky_factor_is_the_one_written_out(generator):
    head = CholeskyScale(7, 4, floor=0.01)
    feature = torch.randn(5, 7, generator=generator)
    raw = torch.nn.functional.linear(feature, head.weight, head.bias).detach().double()
    expected = written_out(raw.view(5, 4, 6).numpy(), 0.01)
    np.testing.assert_allclose(head(feature).detach(), expected, atol=1e-6)


def test_covariance_is_positive_definite_above_its_floor(generator):
    """|det L| is the product of the diagonal, whatever the other entries are."""
    floor = 1e-3
    head = CholeskyScale(7, 4, floor=floor)
    with torch.no_grad():
        head.bias.copy_(torch.tensor([-200.0, -200, -200, 3, -5, 7]).repeat(4))
    factor = head(torch.randn(50, 7, generator=generator)).detach().double()
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    np.testing.assert_allclose(diagonal, floor, rtol=1e-6)
    assert torch.equal(factor, factor.tril())
    covariance = factor @ factor.mT
    assert (torch.linalg.eigvalsh(covariance) > 0).all()
    np.testing.assert_allclose(torch.linalg.det(covariance), floor**6, rtol=1e-4)


def test_correlations_do_not_depend_on_the_size_of_the_scale(generator):
    head = CholeskyScale(7, 2, floor=1e-3)
    feature = torch.randn(3, 7, generator=generator)
    correlations = []
    for offset in (0.0, -4.0):
        with torch.no_grad():
            head.bias.view(2, 6)[:, :3] = offset
            head.bias.view(2, 6)[:, 3:] = torch.tensor([0.5, -1.0, 2.0])
        factor = head(feature).detach().double()
        covariance = (factor @ factor.mT).numpy()
        deviation = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        correlations.append(covariance / deviation[..., None] / deviation[..., None, :])
    np.testing.assert_allclose(correlations[0], correlations[1], atol=1e-5)
    assert abs(correlations[0][..., 0, 1]).max() > 0.3


def test_scale_of_a_full_covariance_is_the_deviation_of_each_axis(generator):
    factor = torch.randn(2, 18, 3, 3, generator=generator).tril()
    pose = PoseDistribution.from_spread(torch.zeros(2, 18, 3), factor)
    covariance = factor.double().numpy() @ factor.double().numpy().swapaxes(-1, -2)
    expected = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    np.testing.assert_allclose(pose.scale, expected, rtol=1e-5)


def test_full_covariance_starts_like_independent_axes():
    torch.manual_seed(0)
    model = PoseRegressor(ModelConfig(**TINY, scale_head="cholesky"), 18)
    factor = model(torch.zeros(1, 3, 64, 64)).scale_tril
    expected = torch.diag(torch.full((3,), 0.5)).expand_as(factor)
    torch.testing.assert_close(factor, expected, atol=0.02, rtol=0)


def test_mirrored_covariance_is_that_of_mirrored_samples(generator):
    """u becomes −u − 1/W, so the covariance Σ becomes D Σ D with D = diag(−1, 1, 1)."""
    factor = torch.randn(3, 18, 3, 3, generator=generator, dtype=torch.float64).tril()
    factor.diagonal(dim1=-2, dim2=-1).abs_().add_(0.1)
    pose = PoseDistribution.from_spread(torch.zeros(3, 18, 3, dtype=torch.float64), factor)
    mirrored = pose.mirrored(HUMAN36M_18, crop_size_px=64)
    other = [
        HUMAN36M_18.index({"L_": "R_", "R_": "L_"}.get(name[:2], name[:2]) + name[2:])
        for name in HUMAN36M_18.joint_names
    ]
    reflection = torch.diag(torch.tensor([-1.0, 1, 1], dtype=torch.float64))
    covariance = reflection @ (factor @ factor.mT)[:, other] @ reflection
    torch.testing.assert_close(mirrored.scale_tril, torch.linalg.cholesky(covariance))
    torch.testing.assert_close(mirrored.scale, covariance.diagonal(dim1=-2, dim2=-1).sqrt())
    assert mirrored.mirrored(HUMAN36M_18, crop_size_px=64).scale_tril.equal(factor)


def test_heatmap_of_the_published_size():
    """RLE, Table 8: ResNet-50 with 18 joints has 34.3 M parameters as integral regression."""
    with torch.device("meta"):
        model = PoseRegressor(ModelConfig(location_head="integral"), 18)
    parameters = {name: p.numel() for name, p in model.named_parameters()}
    count = sum(n for name, n in parameters.items() if not name.startswith("scale_head"))
    assert round(count / 1e6, 1) == 34.3


def test_three_layers_make_a_map_of_64_from_one_of_8():
    head = IntegralHead(3, 2, depth_bins=5, width=4)
    assert head.volume(head.enlarge(torch.zeros(2, 3, 8, 8))).shape == (2, 2 * 5, 64, 64)


def test_an_even_heatmap_answers_with_the_middle_of_a_crop_of_unequal_sides(generator):
    """The mean of all pixel centres of a side of W pixels is at u = (W − 1)/(2W) − 1/2."""
    torch.manual_seed(0)
    settings = TINY | {"location_head": "integral", "integral_width": 8, "depth_bins": 5}
    model = PoseRegressor(ModelConfig(**settings), 2)
    torch.nn.init.zeros_(model.location_head.volume.weight)
    mean = model(torch.randn(1, 3, 64, 96, generator=generator)).mean.detach()
    expected = torch.tensor([np.arange(96).mean() / 96 - 0.5, np.arange(64).mean() / 64 - 0.5, 0])
    torch.testing.assert_close(mean, expected.float().expand(1, 2, 3), atol=1e-6, rtol=0)


def test_heatmap_starts_with_the_published_deviation():
    """Sun et al. draw all weights of the head with deviation 0.001."""
    torch.manual_seed(0)
    head = IntegralHead(16, 4, depth_bins=8, num_layers=1, width=32)
    for layer in (head.enlarge[0], head.volume):
        weights = layer.weight.detach().flatten().numpy()
        low, high = stats.bayes_mvs(weights, alpha=0.9999)[2].minmax
        assert low < 0.001 < high


def test_heatmap_keeps_float64(generator):
    head = IntegralHead(3, 2, depth_bins=4, num_layers=1, width=5).double()
    last_map = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    assert head(last_map, crop_size_px=(32, 32)).dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"location_head": "heatmap"}, r"model\.location_head must be one of released, plain"),
        ({"depth_head": "bins"}, r"model\.depth_head must be one of regression, classification"),
        ({"scale_head": "full"}, r"model\.scale_head must be one of diagonal, cholesky"),
        ({"depth_bins": 1}, r"model\.depth_bins must be >= 2, got 1"),
        ({"integral_layers": -1}, r"model\.integral_layers must be >= 0"),
        ({"integral_width": 0}, r"model\.integral_width must be >= 1"),
        (
            {"location_head": "integral", "depth_head": "classification"},
            "integral finds depth in a volume of depth_bins slices by itself",
        ),
    ],
)
def test_impossible_heads_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)
