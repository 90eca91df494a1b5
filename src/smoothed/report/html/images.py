"""The list of images: which ones are shown, in which order, and what the page says about each, as JSON values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from smoothed.evaluation.results import Result
from smoothed.evaluation.worst_case.rows import CLEAN, WORST
from smoothed.report.html.classifiers import (
    ImageOutcomes,
    ShownClassifier,
    ShownPrefix,
    main_classifier,
    networks,
    shown_classifiers,
    tried_shares,
)
from smoothed.report.html.pictures import amplification, difference, picture

# Classes of an image whose shares are stored, beside the true one.
MOST_CLASSES = 5

# Decimal places of shares and margins in the page.
PLACES = 4


@dataclass(frozen=True, eq=False)
class ListedResult:
    """A result as the list of images reads it.

    Attributes:
        result: the result.
        all_attacked: whether to show the attacked images of every classifier, or only those of the main one.
    """

    result: Result
    all_attacked: bool = True

    @cached_property
    def classifiers(self) -> list[ShownClassifier]:
        """Its classifiers."""
        return shown_classifiers(self.result)

    @cached_property
    def pictures(self) -> list[Tensor]:
        """Attacked versions of the first images, (kept, C, H, W), each once for all classifiers that share it."""
        found = list[Tensor]()
        main = main_classifier(self.classifiers)
        for each in self.classifiers if self.all_attacked else self.classifiers[main : main + 1]:
            if each.adversarial is not None and all(not _same(each.adversarial, other) for other in found):
                found.append(each.adversarial)
        return found

    def picture_of(self, classifier: ShownClassifier) -> int | None:
        """The number of a classifier's attacked images in `pictures`; None if they are not shown."""
        if classifier.adversarial is None:
            return None
        same = (number for number, each in enumerate(self.pictures) if _same(each, classifier.adversarial))
        return next(same, None)

    def clean(self, number: int) -> Tensor | None:
        """A clean image, (C, H, W), if it was kept."""
        return _kept(self.result.tensors.get("images"), number)

    @cached_property
    def factor(self) -> int:
        """The amplification of differences, one for all images."""
        clean = self.result.tensors.get("images")
        if clean is None:
            return 1
        return min((amplification(clean[: len(each)], each[: len(clean)]) for each in self.pictures), default=1)


def _same(first: Tensor, second: Tensor) -> bool:
    return first.data_ptr() == second.data_ptr() and first.shape == second.shape


def listed_images(results: Sequence[ListedResult], most: int) -> list[int]:
    """Numbers of the images to show, the most telling first.

    The order is: images on which two results, or two classifiers of one result, differ; images that are right when they
    are clean and wrong under attack; images that are wrong though clean; all others. Among equals, images with the
    closest votes come first.

    Args:
        results: one or two results on the same images, which have outcomes.
        most: largest number of images. Images with pictures are preferred.
    """
    if not all(each.classifiers for each in results):
        return []
    images = len(results[0].result.tensors["labels"])
    stored = [tensor for each in results for tensor in (each.result.tensors.get("images"), *each.pictures)]
    kept = [len(tensor) for tensor in stored if tensor is not None]
    count = min(max(kept, default=images), images)
    mains = [each.classifiers[main_classifier(each.classifiers)] for each in results]
    decided = [main.decisive.is_right for main in mains]
    if len(results) == 1:
        decided += [each.decisive.is_right for each in results[0].classifiers if each.is_base]
    differs = torch.stack([each != decided[0] for each in decided]).any(0)
    main = mains[0]
    clean = main.clean[-1].is_right
    broken = clean & ~main.decisive.is_right
    rank = torch.full((images,), 3.0).masked_fill(~clean, 2.0).masked_fill(broken, 1.0).masked_fill(differs, 0.0)
    close = torch.zeros(images)
    if main.decisive.margin is not None:
        close[len(main.decisive.margin) :] = 1.0
        close[: len(main.decisive.margin)] = main.decisive.margin.abs()
    return torch.argsort(rank[:count] + close[:count] / 2, stable=True)[:most].tolist()


def explorer(results: Sequence[ListedResult], most: int, side: int) -> dict[str, Any]:
    """Everything that the script of the page shows of single images, as JSON values; `script.js` reads it.

    Args:
        results: one or two results.
        most: largest number of images.
        side: largest width and height of a picture in pixels.
    """
    shown = listed_images(results, most)
    if not shown:
        return {"images": [], "classes": [], "results": []}
    first = results[0].result
    labels = first.tensors["labels"]
    classes = [str(name) for name in first.data.get("classes") or range(int(labels.max()) + 1)]
    abouts = [_about(each, shown) for each in results]
    images = list[dict[str, Any]]()
    for number in shown:
        clean = next((image for each in results if (image := each.clean(number)) is not None), None)
        images.append(
            {
                "number": number,
                "label": int(labels[number]),
                "picture": None if clean is None else picture(clean, side),
                "results": [_of_image(each, number, side, shown) for each in results],
            }
        )
    return {"images": images, "classes": classes, "results": abouts, "total": len(labels)}


def _kept(pictures: Tensor | None, number: int) -> Tensor | None:
    return None if pictures is None or number >= len(pictures) else pictures[number]


def _about(listed: ListedResult, shown: Sequence[int]) -> dict[str, Any]:
    """What all images of a result share; `shown` are the numbers of the images in the list."""
    return {
        "name": str(listed.result.model.get("name", "")),
        "kind": listed.result.kind,
        "factor": listed.factor,
        "main": main_classifier(listed.classifiers),
        "classifiers": [
            {
                "name": each.name,
                "samples": [*(prefix.num_samples for prefix in _prefixes(each, shown)), *each.num_samples],
                "attack": each.attack,
                "picture": listed.picture_of(each),
                "base": each.is_base,
            }
            for each in listed.classifiers
        ],
    }


def _of_image(listed: ListedResult, number: int, side: int, shown: Sequence[int]) -> dict[str, Any]:
    attacked = [_kept(each, number) for each in listed.pictures]
    clean = listed.clean(number)
    amplified = [None if clean is None or each is None else difference(clean, each, listed.factor) for each in attacked]
    label = int(listed.result.tensors["labels"][number])
    return {
        "attacked": [None if each is None else picture(each, side) for each in attacked],
        "difference": [None if each is None else picture(each, side) for each in amplified],
        "votes": [
            [[_outcome(outcomes, number, label) for outcomes in pair] for pair in _steps(each, shown)]
            for each in listed.classifiers
        ],
        "attacks": _attacks(listed.result, number),
        "certified": _certificates(listed.result, number),
    }


def _prefixes(classifier: ShownClassifier, shown: Sequence[int]) -> list[ShownPrefix]:
    """The votes after fewer draws, if they are known for all images in the list."""
    return [prefix for prefix in classifier.prefixes if max(shown) < len(prefix.clean.right)]


def _steps(classifier: ShownClassifier, shown: Sequence[int]) -> list[tuple[ImageOutcomes, ...]]:
    """The outcomes on clean and, with an attack, on attacked images, at each M."""
    sets = [classifier.clean, classifier.attacked] if classifier.attacked else [classifier.clean]
    fewer = [(each.clean, each.attacked) for each in _prefixes(classifier, shown)]
    return [*(tuple(each for each in pair if each is not None) for pair in fewer), *zip(*sets, strict=True)]


def _outcome(outcomes: ImageOutcomes, number: int, label: int) -> list[Any]:
    """[share of right votes, margin, draws, tie, changes, class, shares]; unknown values are None."""
    shares = None
    if outcomes.shares is not None and number < len(outcomes.shares):
        row = outcomes.shares[number]
        top = row.topk(min(MOST_CLASSES, len(row))).indices.tolist()
        known = [each for each in dict.fromkeys([*top, label]) if each == label or row[each] > 0]
        shares = [[each, round(float(row[each]), PLACES)] for each in known]
    predicted = outcomes.predicted if outcomes.predicted is not None and number < len(outcomes.predicted) else None
    margin, draws = (_known(values, number) for values in (outcomes.margin, outcomes.draws))
    return [
        round(float(outcomes.right[number]), PLACES),
        None if margin is None else round(margin, PLACES),
        None if draws is None else int(draws),
        bool(outcomes.tied[number]),
        bool(outcomes.changes[number]),
        None if predicted is None else int(predicted[number]),
        shares,
    ]


def _known(values: Tensor | None, number: int) -> float | None:
    return None if values is None or number >= len(values) else float(values[number])


def _attacks(result: Result, number: int) -> list[dict[str, Any]]:
    """The share of right votes on an image after each attack, for each network; None for an attack that skipped it."""
    if result.kind == "check":
        names = {"white_box": "PGD through the noise", "transfer": "transfer from the mean network"}
        shares = [
            [name, round(float(result.tensors[f"{key}.accuracy"][number]), PLACES)] for key, name in names.items()
        ]
        mean = round(float(result.tensors["mean_network.accuracy"][number]), PLACES)
        return [
            {"network": "vote", "made": None, "shares": shares},
            {"network": "mean network", "made": None, "shares": [["PGD on the mean network", mean]]},
        ]
    if result.kind != "worst-case":
        return []
    found = list[dict[str, Any]]()
    for network, prefix in networks(result).items():
        rows = [row["attack"] for row in result.rows if row["network"] == network]
        tried = tried_shares(result.tensors[f"{prefix}.right"][:, :, number : number + 1])[:, 0].tolist()
        made = int(result.tensors[f"{prefix}.worst_attack"][0, number])
        shares = [
            [
                {CLEAN: "clean image", WORST: "worst case"}.get(name, name),
                None if math.isnan(share) else round(share, PLACES),
            ]
            for name, share in zip(rows, tried, strict=True)
        ]
        found.append({"network": network, "made": None if made < 0 else rows[made + 1], "shares": shares})
    return found


def _certificates(result: Result, number: int) -> list[dict[str, Any]]:
    """The certificate of an image at each sigma."""
    prefix = "" if result.kind == "certify" else "certified."
    if f"{prefix}radius" not in result.tensors:
        return []
    rows = result.rows if result.kind == "certify" else result.summary["certified"]
    sigmas = list(dict.fromkeys(row["sigma"] for row in rows))
    radius, certified = result.tensors[f"{prefix}radius"], result.tensors[f"{prefix}certified_class"]
    return [
        {
            "sigma": f"{sigma:.4g}",
            "class": int(certified[place, number]),
            "radius": round(float(radius[place, number]), PLACES),
        }
        for place, sigma in enumerate(sigmas)
    ]
