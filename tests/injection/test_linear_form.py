"""The noise of a weight as `scale * n + factor @ z`, against the laws' definitions and each draw of `noise`."""

import pytest
import torch
from torch.testing import assert_close

from smoothed.injection import CNI, PNI, Additive, GaussianPosterior, VariationalDropout
from smoothed.injection.layer import NoiseLayer
from smoothed.rng.seeds import seeded
from smoothed.rng.sources import Fresh, Keyed

DRAWS = 5000
# An entry of an empirical covariance, over sqrt(C_ii C_jj), has a deviation of at most sqrt(2 / DRAWS) = 0.02.
TOLERANCE = 0.1
NOISE_LAWS = {
    "pni-layer": PNI("layer"),
    "pni-channel": PNI("channel"),
    "pni-element": PNI("element"),
    "cni-0": CNI(rank=0),
    "cni-1": CNI(rank=1),
    "cni-5": CNI(rank=5),
    "vdo-layer": VariationalDropout("layer"),
    "vdo-channel": VariationalDropout("channel"),
    "vdo-element": VariationalDropout("element"),
    "bnn-layer": GaussianPosterior("layer"),
    "bnn-channel": GaussianPosterior("channel"),
    "bnn-element": GaussianPosterior("element"),
}


def numbers(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learned(law, weight):
    """A noise layer whose strengths are of either sign."""
    layer = law.for_weight(weight).double()
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(0.4 * numbers(*parameter.shape, seed=seed))
    return layer


@pytest.fixture(params=NOISE_LAWS)
def noise(request):
    """A law's layer for a weight of eight elements, and the weight."""
    weight = numbers(2, 2, 1, 2, seed=8)
    return learned(NOISE_LAWS[request.param], weight), weight


def covariance(layer, weight):
    """Of the whole weight, (8, 8), by the definition of the layer's law."""
    spread = ((weight - weight.mean()) ** 2).sum().div(7).sqrt()
    if hasattr(layer, "log_sigma"):
        return torch.diag((2 * layer.log_sigma).exp().expand(weight.shape).flatten()).detach()
    if hasattr(layer, "log_alpha"):
        return torch.diag((layer.log_alpha.exp() * weight**2).flatten()).detach()
    if hasattr(layer, "alpha"):
        return torch.diag((layer.alpha * spread).expand(weight.shape).flatten() ** 2).detach()
    return (torch.diag((spread * layer.variance).abs().flatten()) + layer.factor @ layer.factor.T).detach()


def test_form_has_the_laws_covariance(noise):
    layer, weight = noise
    scale, factor = layer.linear_form(weight)
    assert scale.shape == weight.shape
    form = torch.diag(scale.detach().flatten() ** 2)
    if factor is not None:
        assert factor.shape[0] == 8
        form = form + factor.detach() @ factor.detach().T
    assert_close(form, covariance(layer, weight))


@pytest.mark.slow
def test_noise_has_the_laws_covariance(noise):
    layer, weight = noise
    layer.source = Fresh(seeded(0))
    with torch.no_grad():
        draws = torch.stack([layer(weight) - weight for _ in range(DRAWS)]).flatten(1)
    expected = covariance(layer, weight)
    deviation = expected.diagonal().sqrt()
    assert (draws.mean(0) / deviation).abs().max() < 5 / DRAWS**0.5
    assert ((torch.cov(draws.T) - expected) / deviation.outer(deviation)).abs().max() < TOLERANCE


def test_one_draw_of_noise_is_its_form_of_the_same_normals(noise):
    """Asked for once: n in the weight's order, then z."""
    layer, weight = noise
    scale, factor = layer.linear_form(weight)
    rank = 0 if factor is None else factor.shape[1]
    layer.source, layer.index = Keyed(6, 2), 3
    normals = Keyed(6, 2).shared(3, (8 + rank,), weight)
    expected = scale * normals[:8].view(weight.shape)
    if factor is not None:
        expected = expected + (factor @ normals[8:]).view(weight.shape)
    assert_close(layer(weight) - weight, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("granularity", ["layer", "channel", "element"])
def test_without_factors_cni_is_pni(granularity):
    """Var(alpha std n) = alpha^2 std^2, Var(sqrt(std d) n) = std d: equal where d = alpha^2 std."""
    weight = numbers(2, 2, 1, 2, seed=8)
    pni, cni = learned(PNI(granularity), weight), CNI(rank=0).for_weight(weight).double()
    spread = ((weight - weight.mean()) ** 2).sum().div(7).sqrt()
    with torch.no_grad():
        cni.variance.copy_((pni.alpha**2 * spread).expand(weight.shape))
    assert cni.linear_form(weight)[1] is None
    assert_close(cni.linear_form(weight)[0], pni.linear_form(weight)[0].abs())
    assert_close(covariance(cni, weight), covariance(pni, weight))


def test_scaled_noise_has_a_scaled_form(noise):
    layer, weight = noise
    before = [None if part is None else part.clone() for part in layer.linear_form(weight)]
    layer.scale_(3.0)
    for part, expected in zip(layer.linear_form(weight), before, strict=True):
        assert (part is None) == (expected is None)
        assert part is None or torch.allclose(part, 3 * expected)


def test_other_noise_has_no_form():
    class Cubed(NoiseLayer):
        def noise(self, tensor):
            return self.normals(tensor.shape, tensor) ** 3

        def scale_(self, factor):
            del factor

    assert Cubed(per_row=False).linear_form(torch.ones(2, 2)) is None
    assert Additive().for_activation(2, 2).linear_form(torch.ones(2, 2)) is None
