"""Labels and class names that a data set states beside its items, so that its images need not be read for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from smoothed.data.items import Key

# Attributes in which data sets of torchvision and others keep the labels of all items.
ATTRIBUTES = ("targets", "labels")


def stated_labels(dataset: Any, key: Key) -> Tensor | None:  # noqa: ANN401 - data sets of any library
    """Return the labels of all items as the data set states them, int64 (N,), or None.

    They come from `targets`, `labels`, the tensors of a `TensorDataset`, or the column of a Hugging Face data set, also
    through `Subset` and `ConcatDataset`. They are not used if the data set transforms its labels.

    Args:
        dataset: map-style data set.
        key: key or position of the label in the items.
    """
    if type(dataset) is Subset:
        table = stated_labels(dataset.dataset, key)
        return None if table is None else table[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if type(dataset) is ConcatDataset:
        tables = [stated_labels(part, key) for part in dataset.datasets]
        return None if any(table is None for table in tables) else torch.cat([t for t in tables if t is not None])
    if type(dataset) is TensorDataset:
        return _as_labels(dataset.tensors[int(key)], len(dataset))
    if (
        isinstance(key, str)
        and not _transforms_labels(dataset)
        and key in (getattr(dataset, "column_names", None) or ())
    ):
        return _as_labels(dataset[key][:], len(dataset))
    if _transforms_labels(dataset) or (key != 1 and not isinstance(key, str)):
        return None
    tables = (_as_labels(getattr(dataset, attribute, None), len(dataset)) for attribute in ATTRIBUTES)
    return next((table for table in tables if table is not None), None)


def class_names(dataset: Any, key: Key) -> tuple[str, ...] | None:  # noqa: ANN401 - data sets of any library
    """Return the names of the classes as the data set states them, or None.

    They come from `classes`, or from the feature of the labels in a Hugging Face data set: that of `key`, else the only
    one with names.

    Args:
        dataset: data set of any kind.
        key: key or position of the label in the items.
    """
    if isinstance(dataset, Subset):
        return class_names(dataset.dataset, key)
    if isinstance(dataset, ConcatDataset):
        names = {class_names(part, key) for part in dataset.datasets}
        return names.pop() if len(names) == 1 else None
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        # A transform or a `collate_fn` often renames the column of the labels.
        labelled = [features[key]] if key in features else [f for f in features.values() if hasattr(f, "names")]
        return _as_names(getattr(labelled[0], "names", None)) if len(labelled) == 1 else None
    return None if _transforms_labels(dataset) else _as_names(getattr(dataset, "classes", None))


def _transforms_labels(dataset: Any) -> bool:  # noqa: ANN401
    """Whether labels of items may differ from the stored ones.

    torchvision's data sets have a `target_transform` or a common transform of image and label; Hugging Face's have a
    format `custom` with a transform.
    """
    if getattr(dataset, "target_transform", None) is not None:
        return True
    common = getattr(dataset, "transforms", None)
    if common is not None and getattr(common, "target_transform", common) is not None:
        return True
    state = getattr(dataset, "format", None)
    return isinstance(state, Mapping) and state.get("type") == "custom"


def _as_labels(values: object, count: int) -> Tensor | None:
    if values is None or isinstance(values, str | Mapping):
        return None
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError):
        return None
    if array.dtype.kind not in "iu" or array.shape != (count,):
        return None
    return torch.from_numpy(array.astype(np.int64))


def _as_names(names: object) -> tuple[str, ...] | None:
    if not isinstance(names, list | tuple) or not names:
        return None
    # torchvision's ImageNet has tuples of synonyms.
    return tuple(", ".join(map(str, name)) if isinstance(name, list | tuple) else str(name) for name in names)
