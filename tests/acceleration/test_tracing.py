"""Networks written in many ways: fused they are the same, or they are refused, and nothing is left on them."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.testing import assert_close

from fusible import assert_same, learned
from smoothed.acceleration.fusing import fuse
from smoothed.errors import ArgumentError
from smoothed.injection import CNI, PNI, inject, noise_layers
from smoothed.injection.pni import PNILayer

# The networks have run in train mode, so that noise of the published strength is warned of.
pytestmark = pytest.mark.filterwarnings("ignore:at noise of the published strength")


@pytest.fixture(autouse=True)
def seeded_globally():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def batch(images):
    return images[:4].double()


def body(**options):
    """Two convolutions, one with a batch norm after it, and a linear layer: (N, 3, 8, 8) to four logits."""
    first = nn.Conv2d(3, 4, 3, **options)
    return nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.LazyLinear(4))


class Around(nn.Module):
    """A function of a network and its inputs, with whatever other attributes it needs."""

    def __init__(self, function, inner=None, **attributes):
        super().__init__()
        self.inner = body() if inner is None else inner
        self.function = function
        for name, value in attributes.items():
            if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, inputs):
        return self.function(self, inputs)


class Standardised(nn.Conv2d):
    def _conv_forward(self, inputs, weight, bias):
        return super()._conv_forward(inputs, weight - weight.mean(), bias)


class Doubled(nn.Conv2d):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


class DoubledNorm(nn.BatchNorm2d):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


class Half(nn.Module):
    def forward(self, weight):
        return weight / 2


class Uneven(PNILayer):
    """A user's noise, which says nothing of its form."""

    def __init__(self):
        super().__init__((), 0.25, per_row=False)

    def linear_form(self, weight):
        del weight

    def noise(self, tensor):
        return self.alpha * self.normals(tensor.shape, tensor) ** 3


def with_first(layer):
    model = body()
    model[0] = layer
    return model


def with_norm(norm):
    model = body()
    model[1] = norm
    return model


def changed(change, model=None):
    model = body() if model is None else model
    change(model)
    return model


def doubling(module):
    """The forward of one object is replaced, as profilers and wrappers do."""
    own = module.forward
    module.forward = lambda inputs: 2 * own(inputs)


class Defaults(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = body()

    def forward(self, inputs, scale=3.0, *others, flag=None, **more):
        del others, more
        return self.inner(inputs) * scale if flag is None else inputs


class Named(nn.Module):
    """Submodules with the names of nodes and of methods of tensors."""

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(4, 4)
        self.sin = nn.BatchNorm2d(3)
        self.relu = nn.Conv2d(3, 4, 3)
        self.inputs = nn.Conv2d(4, 4, 3)
        self.mean = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.output(self.mean(self.inputs(self.relu(self.sin(x)).sin().relu())).mean((2, 3)))


def twice_normed(self, inputs):
    """A convolution's output goes to its batch norm and past it."""
    features = self.conv(inputs)
    return self.inner(self.norm(features)[:, :3] + features[:, 1:])


def residual(inner, inputs):
    own = inner[0](inputs)
    return own.flatten(1)[:, :4] + inner(inputs)


NETWORKS = {
    "layer called twice": lambda: Around(lambda self, x: self.inner(self.same(self.same(x))), same=nn.Conv2d(3, 3, 1)),
    "layer of two names": lambda: changed(lambda m: setattr(m, "3", m[3]), nn.Sequential(*body(), nn.Identity())),
    "norm called twice": lambda: Around(
        lambda self, x: self.inner(self.norm(self.conv(self.norm(x)))), norm=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 3, 1)
    ),
    "layer also called from its parent": lambda: Around(lambda self, x: residual(self.inner, x)),
    "output used twice": lambda: Around(twice_normed, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)),
    "output not used": lambda: Around(lambda self, x: (self.conv(x), self.inner(x))[1], conv=nn.Conv2d(3, 4, 1)),
    "by keyword": lambda: Around(
        lambda self, x: self.inner(self.norm(input=self.conv(input=x))), norm=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 3, 1)
    ),
    "hook before a layer": lambda: changed(lambda m: m[3].register_forward_pre_hook(lambda _, args: (2 * args[0],))),
    "hook after a layer": lambda: changed(lambda m: m[0].register_forward_hook(lambda _, args, out: 2 * out)),  # noqa: ARG005
    "hook after a norm": lambda: changed(lambda m: m[1].register_forward_hook(lambda _, args, out: 2 * out)),  # noqa: ARG005
    "hook after a block": lambda: nn.Sequential(
        nn.Conv2d(3, 3, 1),
        changed(lambda m: m.register_forward_hook(lambda _, args, out: 2 * out)),  # noqa: ARG005
    ),
    "reflected padding": lambda: body(padding=1, padding_mode="reflect"),
    "weight norm": lambda: changed(lambda m: parametrizations.weight_norm(m[3])),
    "spectral norm": lambda: changed(lambda m: parametrizations.spectral_norm(m[3])),
    "own parametrization": lambda: changed(lambda m: parametrize.register_parametrization(m[0], "weight", Half())),
    "parametrized bias": lambda: changed(lambda m: parametrize.register_parametrization(m[0], "bias", Half())),
    "parametrized norm": lambda: changed(lambda m: parametrize.register_parametrization(m[1], "weight", Half())),
    "overridden inside": lambda: with_first(Standardised(3, 4, 3)),
    "overridden": lambda: with_first(Doubled(3, 4, 3)),
    "norm overridden": lambda: with_norm(DoubledNorm(4)),
    "norm without statistics": lambda: with_norm(nn.BatchNorm2d(4, track_running_stats=False)),
    "norm without bias": lambda: with_norm(
        changed(lambda norm: norm.register_parameter("bias", None), nn.BatchNorm2d(4))
    ),
    "another norm": lambda: with_norm(nn.GroupNorm(2, 4)),
    "replaced forward": lambda: changed(lambda m: doubling(m[0])),
    "replaced forward of a norm": lambda: changed(lambda m: doubling(m[1])),
    "replaced forward of all": lambda: changed(doubling, Around(lambda self, x: self.inner(x))),
    "transposed": lambda: with_first(nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.Conv2d(4, 4, 3))),
    "sequences": lambda: Around(
        lambda self, x: self.inner(self.norm(self.mix(x.flatten(2))).unflatten(2, (8, 8))),
        mix=nn.Linear(64, 64),
        norm=nn.BatchNorm1d(3),
    ),
    "as many positions as features": lambda: Around(
        lambda self, x: self.inner(x + self.norm(self.mix(x[:, :, :3, 0])).mean(2).view(-1, 3, 1, 1)),
        mix=nn.Linear(3, 3),
        norm=nn.BatchNorm1d(3),
    ),
    "attention": lambda: Around(
        lambda self, x: self.inner((x.flatten(2) + self.mix(*[x.flatten(2)] * 3)[0]).unflatten(2, (8, 8))),
        mix=nn.MultiheadAttention(64, 2, batch_first=True),
    ),
    "tied": lambda: changed(
        lambda m: setattr(m.conv, "weight", m.other.weight),
        Around(lambda self, x: self.inner(self.conv(self.other(x))), conv=nn.Conv2d(3, 3, 1), other=nn.Conv2d(3, 3, 1)),
    ),
    "weights by themselves": lambda: Around(
        lambda self, x: self.inner(functional.conv2d(self.conv(x), self.conv.weight.mT, self.conv.bias)),
        conv=nn.Conv2d(3, 3, 1),
    ),
    "names": Named,
    "parameters of its own": lambda: Around(
        lambda self, x: self.inner(x * self.gain.exp()) + self.shift.square(),
        gain=nn.Parameter(torch.randn(3, 1, 1)),
        shift=nn.Parameter(torch.randn(4)),
    ),
    "buffers of its own": lambda: Around(
        lambda self, x: self.inner(x / self.std.view(-1, 1, 1)), std=torch.rand(3) + 1
    ),
    "more arguments": Defaults,
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Sequential(body())), nn.ModuleDict({"a": nn.Linear(4, 4)})["a"]),
}


@pytest.mark.parametrize("noisy", [False, True], ids=["plain", "noisy"])
@pytest.mark.parametrize("name", NETWORKS)
def test_written_in_another_way(name, noisy, batch):
    model = NETWORKS[name]()
    model(batch.float())  # lazy layers learn their size
    if noisy:
        inject(model, weights=CNI(rank=2))
    fused = fuse(learned(model))
    assert_same(fused, batch)
    with torch.no_grad():
        for index, tensor in enumerate([*model.parameters(), *model.buffers()]):
            if tensor.is_floating_point():
                tensor.mul_(1.05 + 0.001 * index)
    assert_same(fused, batch)


def test_layers_of_another_dtype_stay_as_they_are(batch):
    model = Around(lambda self, x: self.head(self.inner(x).float()).double(), head=nn.Linear(4, 4))
    model(batch.float())
    inject(model, weights=CNI(rank=2))
    learned(model).head.float()
    assert_same(fuse(model), batch, rtol=1e-4, atol=1e-5)


def test_noise_of_an_unknown_form_stays_as_it_is(batch, network):
    parametrize.register_parametrization(network[0], "weight", Uneven(), unsafe=True)
    inject(network, weights=PNI(), layers=["4", "7"])
    assert_same(fuse(learned(network)), batch)


def test_noise_that_somebody_watches_stays_as_it_is(batch, network):
    inject(network, weights=PNI())
    seen = []
    noise_layers(network)[1].register_forward_hook(lambda layer, args, output: seen.append(layer) or output + 1)  # noqa: ARG005
    fused = fuse(learned(network))
    assert not seen
    assert_same(fused, batch)
    assert len(seen) == 2


@pytest.mark.parametrize("mode", [True, False])
def test_a_leafs_own_mode_is_followed(mode, batch):
    """Dropout: fused in one mode, used in both."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 4))
    fused = fuse(learned(network).train(mode))
    assert_same(fused.eval(), batch)
    results = []
    for each in (network, fused):
        torch.manual_seed(3)
        results.append(each.train()(batch))
    assert_close(*results)


def test_a_bare_layer(images):
    layer = learned(nn.Conv2d(3, 4, 1))
    inject(layer, weights=PNI())
    assert_same(fuse(layer), images.double())


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_prepared_by_accelerate_the_caller_chooses_the_precision(precision, images, network):
    AcceleratorState._reset_state(reset_partial_state=True)
    inject(network, weights=PNI())
    twin, accelerator = copy.deepcopy(network), Accelerator(mixed_precision=precision, cpu=True)
    accelerator.prepare_model(network)
    before = dict(vars(network))
    fused = fuse(network)
    assert vars(network) == before
    assert_same(fused, images, plain=twin, rtol=1e-4, atol=1e-5)
    with accelerator.autocast():
        assert fused(images).dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    AcceleratorState._reset_state(reset_partial_state=True)


REFUSED = {
    "data-dependent control flow": (
        lambda: Around(lambda self, x: self.inner(x) if x.mean() > 0.5 else -self.inner(x)),
        "network that torch.fx can trace, got symbolically traced variables cannot be used as inputs to control flow",
    ),
    "functional dropout": (
        lambda: Around(lambda self, x: functional.dropout(self.inner(x), 0.5, self.training)),
        "got one whose operations differ between train and eval mode",
    ),
    "randomness of its own": (
        lambda: Around(lambda self, x: self.inner(x + torch.randn(3, 1, 1))),
        "got one whose forward pass creates tensors",
    ),
    "no_grad on the way": (
        lambda: Around(lambda self, x: x.flatten(1)[:, :4] + torch.no_grad()(self.inner)(x)),
        "got one whose forward pass switches gradients or autocast",
    ),
    "autocast on the way": (
        lambda: Around(lambda self, x: torch.autocast("cpu", enabled=False)(self.inner)(x)),
        "got one whose forward pass switches gradients or autocast",
    ),
    "a statistic of its own": (
        lambda: Around(lambda self, x: setattr(self, "mean", x.mean()) or self.inner(x), mean=torch.zeros(())),
        "got one whose forward pass replaces parameters or buffers",
    ),
    "a hook on the whole": (
        lambda: changed(lambda m: m.register_forward_pre_hook(lambda _, args: (2 * args[0],))),
        "at least one convolution or linear layer that can be fused, got none",
    ),
    "no layers": (lambda: nn.Sequential(nn.Flatten(), nn.ReLU()), "layer that can be fused, got none"),
    "every layer noisy inside": (
        lambda: changed(lambda m: inject(m, activations=PNI()), nn.Sequential(nn.Conv2d(3, 4, 3))),
        "layer that can be fused, got none",
    ),
    "a layer of one's own alone": (lambda: Doubled(3, 4, 3), "layer that can be fused, got none"),
}


def tables(model):
    """What hangs on each submodule, by identity."""
    return {
        (name, key): [*map(id, value.values())] if isinstance(value, dict) else id(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
    }


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, images):
    make, match = REFUSED[name]
    model = make().train()
    model(images)
    attributes = tables(model)
    with pytest.raises(ArgumentError, match=f"model: expected .*{match}") as caught:
        fuse(model)
    assert "\n" not in str(caught.value)
    assert tables(model) == attributes
    assert torch.is_grad_enabled()


def test_what_a_forward_leaves_on_its_modules_is_taken_off(images):
    def forward(self, inputs):
        self.calls += 1
        self.features = self.inner(inputs)
        return self.features

    model = Around(forward)
    model.calls, model.features = 0, None
    model(images)
    before = model.features
    fuse(model)
    assert model.calls == 1
    assert model.features is before
