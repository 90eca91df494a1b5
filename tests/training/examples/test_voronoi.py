"""Voronoi cells against their definition and a solver; the attack in them written out for softmax regression."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from smoothed.data.augment import draw_augmentation
from smoothed.data.imageset import ImageSet
from smoothed.errors import ArgumentError
from smoothed.rng.rows import RowGenerator, normal_, uniform_
from smoothed.training.config import TrainingConfig
from smoothed.training.examples import VoronoiBallExamples, VoronoiExamples, cells
from smoothed.training.examples.cells import Cells, nearest_of_other_classes
from smoothed.training.examples.voronoi import NEIGHBOURS, cells_of

EPS, STEPS, IMAGES = 0.2, 6, 40


def options(**changes):
    settings = {"attack": "voronoi", "attack_steps": STEPS, "relative_step_size": 0.5, "eps": EPS, **changes}
    return TrainingConfig(**{"injection": "none", **settings})


@pytest.fixture
def data(generator):
    """Forty images of 2 x 2 pixels and three channels, float64 numbers that float32 can hold."""
    images = torch.rand(IMAGES, 3, 2, 2, generator=generator).double()
    return ImageSet("random", images, torch.randint(3, (IMAGES,), generator=generator), ("a", "b", "c"))


@pytest.fixture
def linear(generator):
    """A linear network in float64, (N, 3, 2, 2) to three logits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


@pytest.fixture
def part_of(data, make_part):
    """A function (rows, ...) that gives a part with these images of the data set."""

    def make(rows=slice(None), first=0, progress=0.0):
        index = torch.arange(IMAGES)[rows]
        images, labels = data.images[rows], data.labels[rows]
        part = make_part(images, labels, index=index, first=first, total=IMAGES, progress=progress)
        return replace(part, data=data)

    return make


def others(data, i):
    """The images of other classes than image i, nearest first, flat, with their indices."""
    flat = data.images.flatten(1).numpy()
    rows = [j for j in range(len(flat)) if data.labels[j] != data.labels[i]]
    rows.sort(key=lambda j: ((flat[j] - flat[i]) ** 2).sum())
    return flat[rows], rows


@pytest.mark.parametrize(("block", "other_block"), [(2**25, 2**22), (5 * 12, 12 * 7), (12, 1)])
def test_neighbours_are_the_nearest_of_all_pairs(data, block, other_block, monkeypatch):
    """Whatever the blocks in which pairs are compared."""
    monkeypatch.setattr(cells, "BLOCK", block)
    monkeypatch.setattr(cells, "OTHER_BLOCK", other_block)
    found = nearest_of_other_classes(data, 4)
    assert found.shape == (IMAGES, 4)
    for i in range(IMAGES):
        assert found[i].tolist() == others(data, i)[1][:4]


def test_bytes_have_the_neighbours_of_their_floats(data):
    pixels = (255 * data.images).round().to(torch.uint8)
    first = nearest_of_other_classes(replace(data, images=pixels), 3)
    assert torch.equal(first, nearest_of_other_classes(replace(data, images=pixels / 255), 3))


def test_few_images_of_other_classes_bound_a_cell_by_fewer_neighbours(data):
    few = replace(data.first(6), labels=torch.tensor([0, 0, 0, 0, 1, 2]))
    assert nearest_of_other_classes(few, 10).shape == (6, 2)
    assert nearest_of_other_classes(few, 1).shape == (6, 1)
    with pytest.raises(ArgumentError, match="data: expected images of at least two classes, got one class in random"):
        nearest_of_other_classes(replace(few, labels=torch.zeros(6, dtype=torch.int64)), 3)


def nearest_point(centre, neighbours, point):
    """The projection onto the cell, as a quadratic programme."""
    normals, offsets = neighbours - centre, ((neighbours - centre) ** 2).sum(1) / 2
    solved = minimize(
        lambda z: ((z - point) ** 2).sum() / 2,
        centre,
        jac=lambda z: z - point,
        constraints={"type": "ineq", "fun": lambda z: offsets - normals @ (z - centre), "jac": lambda _: -normals},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert solved.success
    return solved.x


def test_projection_is_the_nearest_point_of_the_cell(data, generator):
    """Of cells whose points are far from the edge of [0, 1], where nothing is clipped."""
    centres = 0.5 + 0.02 * (data.images[:8] - 0.5)
    neighbours = 0.5 + 0.02 * (torch.stack([data.images[8 + i : 14 + i] for i in range(8)]) - 0.5)
    points = centres + 0.03 * torch.randn(centres.shape, generator=generator, dtype=torch.float64)
    found = Cells.among(centres, neighbours).project(points)
    outside = 0
    for i in range(8):
        expected = nearest_point(*(tensor[i].flatten(-3).numpy() for tensor in (centres, neighbours, points)))
        outside += int(np.abs(expected - points[i].flatten().numpy()).max() > 1e-4)
        assert np.abs(found[i].flatten().numpy() - expected).max() < 1e-6
    assert outside >= 4  # points of the cell stay where they are


def test_projected_points_are_nearest_to_their_image_and_in_range(data, generator):
    """Also where pixels are clipped: the definition of a cell, among the neighbours that bound it."""
    neighbours = torch.stack([torch.as_tensor(others(data, i)[0][:NEIGHBOURS]) for i in range(IMAGES)])
    cell = Cells.among(data.images, neighbours.view(IMAGES, NEIGHBOURS, 3, 2, 2))
    points = data.images + 2 * torch.randn(data.images.shape, generator=generator, dtype=torch.float64)
    found = cell.project(points)
    assert found.min() >= 0
    assert found.max() <= 1
    to_image = (found - data.images).flatten(1).norm(dim=1)
    to_others = (found[:, None].flatten(2) - neighbours).norm(dim=2)
    assert (to_image <= to_others.amin(1) + 1e-12).all()
    assert (to_others.amin(1) - to_image).min() < 1e-9  # some are at a wall of their cell
    assert torch.allclose(cell.project(found), found, atol=1e-9)


def test_an_equal_image_of_another_class_bounds_nothing(data):
    centres, neighbours = data.images[:2], torch.stack([data.images[:2], data.images[2:4]], 1)
    only = Cells.among(centres, neighbours[:, 1:])
    both = Cells.among(centres, neighbours)
    points = centres + 0.5
    assert torch.allclose(both.project(points), only.project(points), atol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_inner_radius_touches_the_nearest_wall(data, norm):
    """The furthest corner of the ball towards each wall is in the cell, and that of a ball a little larger is not."""
    neighbours = torch.stack([torch.as_tensor(others(data, i)[0][:5]) for i in range(IMAGES)])
    cell = Cells.among(data.images, neighbours.view(IMAGES, 5, 3, 2, 2))
    radii = cell.inner_radii(norm)
    for i in range(IMAGES):
        centre, walls = data.images[i].flatten().numpy(), neighbours[i].numpy()
        directions = [
            np.sign(w - centre) if norm == "linf" else (w - centre) / np.linalg.norm(w - centre) for w in walls
        ]

        def holds(radius, centre=centre, walls=walls, directions=directions):
            corners = [centre + radius * direction for direction in directions]
            return all(np.linalg.norm(z - centre) <= np.linalg.norm(z - w) for z, w in zip(corners, walls, strict=True))

        assert holds(radii[i].item() * (1 - 1e-9))
        assert not holds(radii[i].item() * (1 + 1e-6))


def khoury(image, label, start, weight, bias, project, norm):
    """PGD for one image with the given projection."""
    at = project(image + start)
    for _ in range(STEPS):
        scores = np.exp(weight @ at + bias)
        gradient = weight.T @ (scores / scores.sum() - np.eye(3)[label])
        step = np.sign(gradient) if norm == "linf" else gradient / np.linalg.norm(gradient)
        at = project(at + EPS / 2 * step)
    return at


def starts_of(data, norm):
    """The first random numbers of a part: uniform in the ball of radius EPS."""
    rows = RowGenerator(0)
    if norm == "linf":
        return EPS * uniform_(torch.empty_like(data.images), -1, 1, rows)
    direction = normal_(torch.empty_like(data.images), rows)
    radius = uniform_(torch.empty(IMAGES, 1, 1, 1, dtype=torch.float64), 0, 1, rows).pow(1 / 12)
    return EPS * radius * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_is_pgd_in_the_cell(data, linear, part_of, norm):
    found = VoronoiExamples(options(norm=norm), IMAGES).make(linear, part_of())
    weight, bias = (parameter.detach().numpy() for parameter in linear[1].parameters())
    starts = starts_of(data, norm)
    for i in range(IMAGES):
        cell = Cells.among(
            data.images[i : i + 1], torch.as_tensor(others(data, i)[0][:NEIGHBOURS]).view(1, -1, 3, 2, 2)
        )

        def project(point, cell=cell):
            return cell.project(torch.as_tensor(point).view(1, 3, 2, 2)).flatten().numpy()

        image = data.images[i].flatten().numpy()
        expected = khoury(image, int(data.labels[i]), starts[i].flatten().numpy(), weight, bias, project, norm)
        assert np.abs(found[i].flatten().numpy() - expected).max() < 1e-9
    moved = (found - data.images).flatten(1).abs().amax(1)
    assert moved.max() > EPS  # eps bounds nothing


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_ball_has_the_mean_size_of_the_cells(data, linear, part_of, norm):
    examples = VoronoiBallExamples(options(attack="voronoi-ball", norm=norm), IMAGES)
    found = examples.make(linear, part_of())
    sizes = []
    for i in range(IMAGES):
        differences = others(data, i)[0][:NEIGHBOURS] - data.images[i].flatten().numpy()
        reach = np.abs(differences).sum(1) if norm == "linf" else np.linalg.norm(differences, axis=1)
        sizes.append(((differences**2).sum(1) / 2 / reach).min())
    radius = np.mean(sizes)
    assert examples.state()["radius"].item() == pytest.approx(radius, rel=1e-6)
    weight, bias = (parameter.detach().numpy() for parameter in linear[1].parameters())
    starts = starts_of(data, norm)
    for i in range(IMAGES):
        image = data.images[i].flatten().numpy()

        def project(point, image=image):
            moved = point - image
            length = np.linalg.norm(moved)
            limited = np.clip(moved, -radius, radius) if norm == "linf" else moved * min(1, radius / length)
            return np.clip(image + limited, 0, 1)

        expected = khoury(image, int(data.labels[i]), starts[i].flatten().numpy(), weight, bias, project, norm)
        assert np.abs(found[i].flatten().numpy() - expected).max() < 1e-6


def test_neighbours_are_cropped_and_mirrored_as_the_image_is(data, part_of):
    """The cell of an augmented image is that among its neighbours under the same augmentation."""
    part = part_of(slice(4, 9))
    drawn = draw_augmentation(torch.Generator().manual_seed(3), 5, padding=1)
    part = replace(part, clean=drawn.apply(part.clean), augmentation=drawn)
    neighbours = nearest_of_other_classes(data, 3)[4:9]
    cell = cells_of(data, neighbours, part)
    assert drawn.flips.any()
    for row in range(5):
        one = drawn.rows(slice(row, row + 1))
        for k in range(3):
            towards = one.apply(data.images[neighbours[row, k]][None]) - part.clean[row]
            length = towards.norm()
            assert cell.offsets[row, k].item() == pytest.approx(length.item() / 2, abs=1e-12)
            assert torch.allclose(cell.normals[row, k] * length, towards.flatten(), atol=1e-12)


@pytest.mark.parametrize("kind", [VoronoiExamples, VoronoiBallExamples])
def test_parts_of_a_batch_have_the_examples_of_the_whole(kind, linear, part_of):
    examples = kind(options(), IMAGES)
    whole = examples.make(linear, part_of(progress=0.5))
    pieces = [part_of(slice(None, 7), progress=0.5), part_of(slice(7, None), first=7, progress=0.5)]
    assert torch.allclose(torch.cat([examples.make(linear, part) for part in pieces]), whole, atol=1e-9)


@pytest.mark.parametrize("kind", [VoronoiExamples, VoronoiBallExamples])
def test_what_one_remembers_another_goes_on_with(kind, linear, part_of, monkeypatch):
    first, second = kind(options(), IMAGES), kind(options(), IMAGES)
    assert first.state() == {}
    second.restore({})
    whole = first.make(linear, part_of())
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    second.restore(state)
    monkeypatch.setattr(
        "smoothed.training.examples.voronoi.nearest_of_other_classes", lambda *_: pytest.fail("sought again")
    )
    assert torch.equal(second.make(linear, part_of()), whole)


def test_steps_and_their_length_grow(data, linear, part_of):
    examples = VoronoiExamples(options(eps_warmup=0.5, steps_warmup=0.5), IMAGES)
    assert torch.equal(examples.make(linear, part_of(progress=0.0)), data.images)
    moved = [(examples.make(linear, part_of(progress=p)) - data.images).norm().item() for p in (0.1, 0.25, 0.5)]
    assert moved == sorted(moved)
    assert moved[0] > 0
