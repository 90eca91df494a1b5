"""Adversarial training in Voronoi cells (Khoury and Hadfield-Menell, 2019): a cell of each image in place of a ball.

The constraint of the attack on an image x with the label y is the cell of x among the training images of other classes,
{z: |z - x| <= |z - x_i| for all i with another label}: cells need no radius, are larger where classes are further
apart, and never overlap those of another class. The mean loss on the examples is minimised, as in adversarial training.

Only the abstract of the paper was available: it states PGD with the cell in place of the ball. The rest is a choice of
this module. Cells use the L2 norm, whatever the norm of the steps. Only the `NEIGHBOURS` nearest images of other
classes bound a cell; within half of the distance to the next one, this equals the full cell. Starts and step lengths
are those of PGD of radius eps, so the number of steps limits the distance. Attack `voronoi-ball` is the comparison: the
same starts and steps in a ball, whose radius is the mean over the training images of the radius of the largest ball
inside their cells.

On CIFAR-10 the boundaries of a cell are far away. Few steps of the usual length hardly ever reach them or the boundary
of that ball, so both attacks give the same examples. With more steps (`attack_steps`) or longer ones
(`relative_step_size`), they differ and are harder to learn from.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from smoothed.attacks import one_draw_loss
from smoothed.attacks.ball import Norm, ball
from smoothed.attacks.gradient import input_gradient
from smoothed.data.augment import Augmentation
from smoothed.data.images import Images
from smoothed.data.imageset import to_float
from smoothed.training.batch import Part
from smoothed.training.examples.attacked import CleanExamples
from smoothed.training.examples.cells import Cells, nearest_of_other_classes
from smoothed.training.examples.examples import ExampleOptions, linear_warmup
from smoothed.utils.modes import Classifier, eval_mode

NEIGHBOURS = 10
"""Number of neighbours that bound a cell."""
# Number of images whose cells are measured at once.
MEASURED = 256

Projection = Callable[[Tensor], Tensor]
"""Function from images, (n, C, H, W), to the nearest images that the attack may use, of the same shape."""


class VoronoiExamples(CleanExamples):
    """Examples of PGD inside the image's Voronoi cell among training images of other classes.

    The neighbours of all N training images, (N, m), are found before the first step by comparing all pairs, which for
    CIFAR takes some minutes on a CPU core, and kept in the state of the run. A neighbour is cropped and mirrored as the
    image is. Crops that a data set makes while it reads its images are not known here. Each gradient is one draw of a
    network with noise.
    """

    def __init__(self, options: ExampleOptions, images: int) -> None:
        super().__init__(options, images)
        self.norm: Norm = "l2" if options.norm == "l2" else "linf"
        self.neighbours: Tensor | None = None

    def make(self, model: Classifier, part: Part) -> Tensor:
        """See `Examples.make`."""
        options, geometry, clean = self.options, ball(self.norm), part.clean
        eps = linear_warmup(options.eps, part.progress, options.eps_warmup)
        steps = max(1, round(linear_warmup(options.attack_steps, part.progress, options.steps_warmup)))
        project, objective = self.projection(part), one_draw_loss()
        images = project(clean + geometry.uniform(clean, eps, part.row_generator))
        with eval_mode(model):
            for _ in range(steps):
                gradient = input_gradient(objective, model, images, part.labels)
                images = project(images + options.relative_step_size * eps * geometry.steepest(gradient))
        return images

    def projection(self, part: Part) -> Projection:
        """Return the projection onto the cells of the images of `part`."""
        neighbours = self.neighbours_in(part.training_set)
        return cells_of(part.training_set, neighbours[part.index.to(neighbours.device)], part).project

    def neighbours_in(self, data: Images) -> Tensor:
        """Return the indices of the neighbours of all training images, (N, m)."""
        if self.neighbours is None:
            self.neighbours = nearest_of_other_classes(data, NEIGHBOURS)
        return self.neighbours

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return {} if self.neighbours is None else {"neighbours": self.neighbours}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""
        self.neighbours = state.get("neighbours")


class VoronoiBallExamples(VoronoiExamples):
    """Examples of the same PGD in a ball of the mean size of the cells, in the norm of the steps.

    The size of a cell is the radius of the largest ball inside it around its image, computed from the stored
    neighbours.
    """

    def __init__(self, options: ExampleOptions, images: int) -> None:
        super().__init__(options, images)
        self.radius: Tensor | None = None

    def projection(self, part: Part) -> Projection:
        """Return the projection onto the ball around the images of `part`."""
        if self.radius is None:
            data = part.training_set
            self.radius = mean_inner_radius(data, self.neighbours_in(data), self.norm).cpu()
        clean, radius, geometry = part.clean, float(self.radius), ball(self.norm)
        return lambda images: (clean + geometry.project(images - clean, radius)).clamp(0, 1)

    def state(self) -> Mapping[str, Tensor]:
        """See `Examples.state`."""
        return {} if self.radius is None else {**super().state(), "radius": self.radius}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Examples.restore`."""
        super().restore(state)
        self.radius = state.get("radius")


def cells_of(data: Images, neighbours: Tensor, part: Part) -> Cells:
    """Return the cells of the images of `part` among the images of `data` at the indices `neighbours`, (n, m)."""
    count = neighbours.shape[1]
    ((images, _),) = data.load([neighbours.flatten().cpu()])
    images = to_float(images).to(part.clean)
    if part.augmentation is not None:
        drawn = part.augmentation
        repeated = (rows.repeat_interleave(count) for rows in (drawn.tops, drawn.lefts, drawn.flips))
        images = Augmentation(*repeated, padding=drawn.padding).apply(images)
    return Cells.among(part.clean, images.unflatten(0, (len(part.clean), count)))


def mean_inner_radius(data: Images, neighbours: Tensor, norm: Norm) -> Tensor:
    """Return the mean over all images of the radius of the largest ball of `norm` inside their cells, a scalar.

    Args:
        data: N images.
        neighbours: indices of the neighbours that bound their cells, (N, m).
        norm: norm of the balls; radii are in its pixel units.
    """
    radii = list[Tensor]()
    for index in torch.arange(len(data)).split(MEASURED):
        rows = neighbours[index.to(neighbours.device)]
        (images, _), (others, _) = data.load([index, rows.flatten().cpu()])
        centres, others = to_float(images), to_float(others)
        radii.append(Cells.among(centres, others.unflatten(0, tuple(rows.shape))).inner_radii(norm))
    return torch.cat(radii).double().mean().float()
