"""Voronoi cells of images among images of other classes: nearest neighbours, half-spaces, projection and size.

The cell of an image x among images y_1, y_2, ... holds the points z that are at most as far from x as from any y_k in
the L2 norm. It is an intersection of half-spaces, one for each y_k:

    <y_k - x, z - x> <= |y_k - x|^2 / 2
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smoothed.attacks.ball import Norm
from smoothed.data.images import Images
from smoothed.data.imageset import to_float
from smoothed.errors import ArgumentError

# Memory limits in floats: of a block of images whose neighbours are searched, and of a block of candidates.
BLOCK, OTHER_BLOCK = 2**25, 2**22
# Sweeps over the half-spaces in a projection. Any remaining violation is removed by moving the point towards the image.
SWEEPS = 30
# Keeps 0 / 0 out of half-spaces of two equal images, which cut off nothing.
TINY = 1e-12


@dataclass(frozen=True)
class Cells:
    """Cells of n images of d pixels among m neighbours each: {z: <normals_k, z - centre> <= offsets_k for all k}.

    Attributes:
        centres: the images, (n, C, H, W) in [0, 1].
        normals: unit vectors from each image to its neighbours, (n, m, d); 0 for a neighbour equal to the image.
        offsets: half of the distances to the neighbours, (n, m).
    """

    centres: Float[Tensor, "n c h w"]
    normals: Float[Tensor, "n m d"]
    offsets: Float[Tensor, "n m"]

    @classmethod
    def among(cls, centres: Float[Tensor, "n c h w"], neighbours: Float[Tensor, "n m c h w"]) -> "Cells":
        """Return the cells of `centres` among their `neighbours`."""
        differences = (neighbours - centres[:, None]).flatten(2)
        distances = differences.norm(dim=2)
        return cls(centres, differences / distances.clamp_min(TINY)[..., None], distances / 2)

    def project(self, points: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return points of the cells and of [0, 1] near `points`.

        Points outside of a cell are moved to its nearest point (Hildreth's method, `SWEEPS` passes over the
        half-spaces), their pixels are clipped to [0, 1], and what then still lies outside of the cell is moved towards
        the image. Without clipping, the result is the nearest point up to the error of the passes; in any case it is
        in the cell up to rounding, because the cell and [0, 1] are convex and hold the image.
        """
        with torch.autocast(points.device.type, enabled=False):
            moved = (points - self.centres).flatten(1)
            if bool((self._along(moved) > self.offsets).any()):
                moved = moved - torch.einsum("nm,nmd->nd", self._multipliers(moved), self.normals)
            inside = (self.centres + moved.view_as(self.centres)).clamp(0, 1)
            moved = (inside - self.centres).flatten(1)
            along = self._along(moved)
            share = torch.where(along > self.offsets, self.offsets / along.clamp_min(TINY), 1.0).amin(1)
            return self.centres + (share[:, None] * moved).view_as(self.centres)

    def inner_radii(self, norm: Norm) -> Float[Tensor, " n"]:
        """Return the radius of the largest ball of `norm` around each image inside its cell, in pixel units."""
        if norm == "l2":
            return self.offsets.amin(1)
        # A ball of radius r reaches <normal, z - x> = r |normal|_1.
        return (self.offsets / self.normals.abs().sum(2).clamp_min(TINY)).amin(1)

    def _along(self, moved: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Lengths of displacements along the normals."""
        return torch.einsum("nmd,nd->nm", self.normals, moved)

    def _multipliers(self, moved: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Multipliers l >= 0 of the projection `moved - sum_k l_k normal_k`, of the dual problem by coordinates."""
        gram = self.normals @ self.normals.mT
        excess = self._along(moved) - self.offsets
        multipliers = torch.zeros_like(excess)
        for _ in range(SWEEPS):
            for k in range(excess.shape[1]):
                left = excess[:, k] - (gram[:, k] * multipliers).sum(1)
                multipliers[:, k] = (multipliers[:, k] + left).clamp_min(0)
        return multipliers


def nearest_of_other_classes(data: Images, count: int) -> Int[Tensor, "n m"]:
    """Find the nearest images of other classes for each image of a data set, in the L2 norm, by comparing all pairs.

    Distances are computed in float32, so that neighbours whose distances are equal up to rounding may change places.

    Args:
        data: N labelled images; they are read block by block.
        count: number m of neighbours. It is smaller if a class has fewer images of other classes.

    Returns:
        Indices of the neighbours, nearest first, (N, m) int64 on the device of the data.

    Raises:
        ArgumentError: all images have the same class.
    """
    labels = data.labels.to(data.device)
    count = min(count, len(data) - int(labels.bincount().max()))
    if count == 0:
        hint = "a Voronoi cell is one among images of other classes"
        raise ArgumentError("data", "images of at least two classes", f"one class in {data.name}", hint)
    size = next(data.load([torch.zeros(1, dtype=torch.int64)]))[0][0].numel()
    every = torch.arange(len(data))
    blocks = every.split(max(count, OTHER_BLOCK // size))
    with torch.no_grad(), torch.autocast(data.device.type, enabled=False):
        found = [_nearest_of_block(data, labels, own, blocks, count) for own in every.split(max(1, BLOCK // size))]
    return torch.cat(found)


def _nearest_of_block(
    data: Images, labels: Tensor, own: Tensor, blocks: tuple[Tensor, ...], count: int
) -> Int[Tensor, "b m"]:
    """Neighbours of the images at the indices `own`, among the images of all `blocks` of indices."""
    images, device = _pixels(data, own), data.device
    squares = images.square().sum(1)
    distances = images.new_full((len(own), count), torch.inf)
    nearest = torch.zeros(len(own), count, dtype=torch.int64, device=device)
    for block in blocks:
        others = _pixels(data, block)
        squared = (squares[:, None] + others.square().sum(1)).addmm_(images, others.T, alpha=-2)
        squared[labels[own.to(device), None] == labels[block.to(device)]] = torch.inf
        values, positions = squared.topk(min(count, len(block)), largest=False)
        distances, order = torch.cat([distances, values], 1).topk(count, largest=False)
        nearest = torch.cat([nearest, block.to(device)[positions]], 1).gather(1, order)
    return nearest


def _pixels(data: Images, index: Tensor) -> Float[Tensor, "b d"]:
    """Pixels of the images at `index`, around 0, where squares are small and differences of squares exact."""
    ((images, _),) = data.load([index])
    return to_float(images).flatten(1) - 0.5
