"""Images of a map-style data set of the user, read item by item on demand.

A data set may augment its images at random. The global generators of torch, NumPy and Python are seeded before each
item is read and restored afterwards, so that the same image comes out each time, in every process.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, get_worker_info

from smoothed.data.folder import ignore_interrupts
from smoothed.data.global_generators import restoring_generators, seed_generators
from smoothed.data.items import Keys, keys_of, to_image, to_label
from smoothed.data.known_labels import class_names, stated_labels
from smoothed.errors import ArgumentError

# Images that a worker reads at a time; a batch is divided among the workers.
PIECE = 32
# Items read when the set is made, evenly spaced, to compare their labels with the stated labels.
CHECKED_ITEMS = 4
# Seed of the augmentation in evaluations.
EVALUATION_SEED = 0
UNKNOWN = -1

Collate = Callable[[list[Any]], Any]
"""Function of a `DataLoader` that makes a batch of a list of items."""


@dataclass(frozen=True)
class Workers:
    """Worker processes of a `DataLoader` that read items.

    Attributes:
        count: number of processes; 0 reads items in this process.
        on_start: the user's `worker_init_fn`.
        context: the user's `multiprocessing_context`.
    """

    count: int = 0
    on_start: Callable[[int], object] | None = None
    context: Any = None


class DatasetSource:
    """Map-style data set; it implements `ImageSource`.

    Labels come from `stated_labels` where these agree with the items that are read; otherwise items are read for their
    labels once, when labels are asked for.

    Args:
        dataset: object with `__getitem__` and `__len__`, whose items `to_image` and `to_label` can convert.
        keys: keys of image and label in an item; None to try the usual ones.
        collate: function that makes a batch of a list of items; items go through it one by one. None for no function.
        workers: processes that read the items.

    Raises:
        ArgumentError: the data set is empty, or one of the first items read is invalid or differs between two reads.
    """

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401 - data sets of any library
        keys: Keys | None = None,
        collate: Collate | None = None,
        workers: Workers = Workers(),
    ) -> None:
        self._count = _length(dataset)
        if not self._count:
            raise ArgumentError("data", "at least one image", f"an empty {type(dataset).__name__}")
        self._items, self._workers = _Items(dataset, keys, collate), workers
        with restoring_generators():
            found = self._items.keys_at(0)
            image, label = self._items.read(0, EVALUATION_SEED)
            again = self._items.read(0, EVALUATION_SEED)
        if not torch.equal(image, again[0]) or label != again[1]:
            hint = "draw augmentations from the global generator of torch, NumPy or Python, which are seeded here"
            raise ArgumentError("data", "the same image 0 each time it is read", "another at the second read", hint)
        self._items = _Items(dataset, found, collate, tuple(image.shape), image.dtype)
        self._names = class_names(dataset, found[1])
        self._labels = torch.full((self._count,), UNKNOWN)
        self._record(torch.tensor([0]), torch.tensor([label]))
        table = None if collate is not None else stated_labels(dataset, found[1])
        if table is not None and self._agrees(table):
            self._labels = table
            self._check_stated()

    def __len__(self) -> int:
        return self._count

    @property
    def named_classes(self) -> bool:
        """See `ImageSource.named_classes`."""
        return self._names is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """See `ImageSource.classes`."""
        if self._names is not None:
            return self._names
        return tuple(map(str, range(int(self.labels_at(torch.arange(self._count)).max()) + 1)))

    def labels_at(self, indices: Tensor) -> Tensor:
        """See `ImageSource.labels_at`. Items whose labels are unknown are read."""
        unknown = indices[self._labels[indices] == UNKNOWN].unique()
        for _ in self.read(unknown.split(PIECE * max(1, self._workers.count)) if len(unknown) else (), None):
            pass
        return self._labels[indices]

    def read(self, batches: Sequence[Tensor], seed: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """See `ImageSource.read`."""
        pieces = [piece.tolist() for batch in batches for piece in batch.split(PIECE)]
        count = min(self._workers.count, len(pieces))
        loader = DataLoader(
            _Pieces(self._items, EVALUATION_SEED if seed is None else seed),
            sampler=pieces,
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=count,
            worker_init_fn=partial(_start_worker, self._workers.on_start),
            multiprocessing_context=self._workers.context if count else None,
            generator=torch.Generator(),  # else the loader would draw from torch's default generator
        )
        owners = [number for number, batch in enumerate(batches) for _ in batch.split(PIECE)]
        parts: list[tuple[Tensor, Tensor]] = []
        # The iterator of the loader has no name here: with one, the traceback of an error would keep its workers alive.
        for piece, (number, part) in enumerate(zip(owners, loader, strict=True), start=1):
            if isinstance(part, _ItemError):
                raise part.restored()
            if isinstance(part, _UserError):
                part.wrapper.reraise()
            parts.append(part)
            if piece == len(owners) or owners[piece] != number:
                images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
                parts.clear()
                self._record(batches[number], labels)
                yield images, labels

    def _record(self, indices: Tensor, labels: Tensor) -> None:
        """Store the labels of items that were read, and compare them with what is known."""
        before = self._labels[indices]
        differs = (before != UNKNOWN) & (before != labels)
        if differs.any():
            at = int(differs.nonzero()[0])
            got = f"{int(before[at])} and then {int(labels[at])} for image {int(indices[at])}"
            hint = "let the items have the labels of the data set's attribute targets or labels, or remove this"
            raise ArgumentError("data", "one label per image", got, hint)
        self._check_names(indices, labels)
        self._labels[indices] = labels

    def _agrees(self, table: Tensor) -> bool:
        """Whether stated labels are those of a few items."""
        with restoring_generators():
            indices = (self._count * i // CHECKED_ITEMS for i in range(CHECKED_ITEMS))
            return all(self._items.label(index, EVALUATION_SEED) == int(table[index]) for index in indices)

    def _check_stated(self) -> None:
        if int(self._labels.min()) < 0:
            at = int((self._labels < 0).nonzero()[0])
            to_label(int(self._labels[at]), f"image {at}")
        self._check_names(torch.arange(self._count), self._labels)

    def _check_names(self, indices: Tensor, labels: Tensor) -> None:
        if self._names is not None and len(labels) and int(labels.max()) >= len(self._names):
            at = int(labels.argmax())
            expected = f"labels in 0..{len(self._names) - 1}, because the data set names {len(self._names)} classes"
            raise ArgumentError("data", expected, f"{int(labels[at])} in image {int(indices[at])}")


def _length(dataset: Any) -> int:  # noqa: ANN401
    try:
        return len(dataset)
    except TypeError:
        got = f"a {type(dataset).__name__} without __len__"
        raise ArgumentError("data", "a data set with a length", got, "define __len__, the number of images") from None


@dataclass(frozen=True)
class _Items:
    """Conversion of the items of a data set, which travels to the workers.

    Attributes:
        dataset: map-style data set.
        keys: keys of image and label.
        collate: function that makes a batch of items.
        shape: shape that all images have to have, (C, H, W); empty before it is known.
        dtype: type of all images, uint8 or float32.
    """

    dataset: Any
    keys: Keys | None
    collate: Collate | None
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.uint8

    def keys_at(self, index: int) -> Keys:
        """Keys of image and label, as the item at `index` shows."""
        seed_generators(EVALUATION_SEED, index)
        return keys_of(self._item(index), self.keys, f"image {index}")

    def read(self, index: int, seed: int) -> tuple[Tensor, int]:
        """Read image and label at `index` with global generators that are a function of (seed, index)."""
        where = f"image {index}"
        image, label = self._parts(index, seed)
        pixels = to_image(image, where)
        if self.shape and tuple(pixels.shape) != self.shape:
            hint = "resize and crop images in the data set, and convert all to RGB or all to grey"
            got = f"{tuple(pixels.shape)} in {where}"
            raise ArgumentError("data", f"images of one shape, {self.shape} as in image 0", got, hint)
        if self.shape and pixels.dtype != self.dtype:
            raise ArgumentError("data", f"images of one type, {self.dtype} as in image 0", f"{pixels.dtype} in {where}")
        return pixels, to_label(label, where)

    def label(self, index: int, seed: int) -> int:
        """Read the label at `index`."""
        return to_label(self._parts(index, seed)[1], f"image {index}")

    def _parts(self, index: int, seed: int) -> tuple[Any, Any]:
        """Image and label at `index` as the data set has them."""
        seed_generators(seed, index)
        where, item = f"image {index}", self._item(index)
        image_key, label_key = keys_of(item, self.keys, where)
        image, label = item[image_key], item[label_key]
        if self.collate is None:
            return image, label
        return _only(image, "images", where), _only(label, "labels", where)

    def _item(self, index: int) -> Any:  # noqa: ANN401
        item = self.dataset[index]
        return item if self.collate is None else self.collate([item])


def _only(batch: Any, what: str, where: str) -> Any:  # noqa: ANN401
    """The only element of a batch that was made of one item."""
    try:
        if len(batch) == 1:
            return batch[0]
        got = f"{len(batch)} for {where}"
    except TypeError:
        got = f"{type(batch).__name__} for {where}"
    raise ArgumentError("data", f"one element in the {what} that collate_fn makes of one item", got)


@dataclass(frozen=True)
class _ItemError:
    """An `ArgumentError` about an item, as it travels from a worker: exceptions with several arguments do not."""

    argument: str
    expected: str
    got: str

    @classmethod
    def of(cls, error: ArgumentError) -> "_ItemError":
        expected, _, got = str(error).removeprefix(f"{error.argument}: expected ").partition(", got ")
        return cls(error.argument, expected, got)

    def restored(self) -> ArgumentError:
        """The exception, with the same message."""
        return ArgumentError(self.argument, self.expected, self.got)


@dataclass(frozen=True)
class _UserError:
    """An exception from the user's own code, as it travels from a worker, with the worker's traceback in its message.

    The iterator of the loader would raise it itself, but the traceback would then keep the iterator alive: its workers
    would end at the next garbage collection, after 5 s each.
    """

    wrapper: ExceptionWrapper


@dataclass(frozen=True)
class _Pieces(Dataset[tuple[Tensor, Tensor] | _ItemError | _UserError]):
    """Reader of several items in a worker, which returns their images and labels, or the error of an item.

    The error is returned because raising it would add the worker's traceback to its message.
    """

    items: _Items
    seed: int

    def __getitem__(self, index: list[int]) -> tuple[Tensor, Tensor] | _ItemError | _UserError:
        images = torch.empty(len(index), *self.items.shape, dtype=self.items.dtype)
        labels = torch.empty(len(index), dtype=torch.int64)
        try:
            with restoring_generators():
                for row, number in enumerate(index):
                    image, labels[row] = self.items.read(number, self.seed)
                    images[row] = image
        except ArgumentError as error:
            return _ItemError.of(error)
        except Exception:
            worker = get_worker_info()
            if worker is None:
                raise
            return _UserError(ExceptionWrapper(where=f"in DataLoader worker process {worker.id}"))
        return images, labels


def _unchanged(piece: Any) -> Any:  # noqa: ANN401
    return piece


def _start_worker(on_start: Callable[[int], object] | None, worker: int) -> None:
    if on_start is not None:
        on_start(worker)
    ignore_interrupts(worker)
