"""The classifiers of a result, with the outcome of each image: what the list of images, the charts and the tests read.

A classifier is one vote under one noise, at one or several numbers of draws M. Each kind of evaluation stores its
tensors in its own layout (docs/results-format.md); here they have one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from smoothed.evaluation.paper_protocol.rows import ONE_DRAW
from smoothed.evaluation.results import Result
from smoothed.report.format import format_attack, format_base, format_sigma
from smoothed.smoothing.certification import predict_from_counts

# Shares that differ by less are a tie: sums of scores in float32 that should be equal.
TIE = 1e-6


@dataclass(frozen=True, eq=False)
class ImageOutcomes:
    """What one vote did on each image; N images, of which the first n have shares.

    Margins, draws, shares and classes are those of the first run, and of the first of several votes.

    Attributes:
        right: share of right votes of each image, the mean over runs, (N,) float64 in [0, 1].
        changes: whether one run was right and another one wrong, (N,) bool.
        margin: share of the true class minus the largest other share, in [-1, 1], of all images or of the first n; None
            if it was not measured.
        draws: draws after which no further draw could change the class, of all images or of the first n; None if they
            were not counted.
        shares: vote shares, (n, K); None if they were not kept.
        predicted: class of the vote, (n,) int64, -1 for an abstention; None if it is unknown.
    """

    right: Tensor
    changes: Tensor
    margin: Tensor | None = None
    draws: Tensor | None = None
    shares: Tensor | None = None
    predicted: Tensor | None = None

    @classmethod
    def of_runs(
        cls, runs: Tensor, *, margin: Tensor | None = None, draws: Tensor | None = None, shares: Tensor | None = None
    ) -> "ImageOutcomes":
        """Outcomes from the share of right votes of each image in each run, (runs, N); the rest is of the first run."""
        values = runs.double()
        most = values > 0.5
        predicted = shares.argmax(1) if shares is not None and len(shares) else None
        return cls(values.mean(0), most.any(0) & ~most.all(0), margin, draws, shares, predicted)

    @property
    def is_right(self) -> Tensor:
        """Whether more than half of the votes on each image are right, (N,) bool."""
        return self.right > 0.5

    @cached_property
    def tied(self) -> Tensor:
        """Whether two classes share the highest score, (N,) bool; false where neither shares nor margin are known."""
        tied = torch.zeros(len(self.right), dtype=torch.bool)
        if self.margin is not None:
            tied[: len(self.margin)] = self.margin.abs() < TIE
        if self.shares is not None and len(self.shares):
            first, second = self.shares.topk(2, 1).values.unbind(1)
            tied[: len(self.shares)] = first - second < TIE
        return tied


@dataclass(frozen=True, eq=False)
class ShownPrefix:
    """One vote on the first n images alone, after fewer draws than M.

    Attributes:
        num_samples: number of draws.
        clean: outcomes on clean images.
        attacked: outcomes on attacked images; None without an attack.
    """

    num_samples: int
    clean: ImageOutcomes
    attacked: ImageOutcomes | None


@dataclass(frozen=True, eq=False)
class ShownClassifier:
    """One vote under one noise.

    Attributes:
        name: what it is, such as `soft vote, sigma 0.25`.
        vote: name of the vote; `none` for a base.
        sigma: standard deviation of the input noise in pixel units of [0, 1]; None for a noise that states none.
        num_samples: numbers of draws M, ascending.
        clean: outcomes on clean images at each M.
        attacked: outcomes on attacked images at each M; empty without an attack.
        attack: name of the attack; empty without one.
        adversarial: attacked versions of the first images, (kept, C, H, W); None if they were not kept.
        is_base: whether it is what votes are compared with: one draw, or the network without noise.
        is_own: whether it has the noise of the evaluated classifier or of its checkpoint, and its vote if that was
            evaluated.
        prefixes: a vote on the first images after fewer draws than the smallest M, ascending. Only the list of images
            shows them, because accuracies need all images.
    """

    name: str
    vote: str
    sigma: float | None
    num_samples: list[int]
    clean: list[ImageOutcomes]
    attacked: list[ImageOutcomes] = field(default_factory=list)
    attack: str = ""
    adversarial: Tensor | None = None
    is_base: bool = False
    prefixes: list[ShownPrefix] = field(default_factory=list)
    is_own: bool = False

    @property
    def decisive(self) -> ImageOutcomes:
        """The outcomes at the largest M, on attacked images if there are any."""
        return (self.attacked or self.clean)[-1]


def shown_classifiers(result: Result) -> list[ShownClassifier]:
    """The classifiers of a result, the base first; none if it has no outcomes of images."""
    if "labels" not in result.tensors or result.kind not in _READERS:
        return []
    return _READERS[result.kind](result)


def main_classifier(classifiers: list[ShownClassifier]) -> int:
    """Number of the classifier that is shown first: the evaluated one's own, else the first one that is no base."""
    own = (number for number, each in enumerate(classifiers) if each.is_own)
    return next(own, next((number for number, each in enumerate(classifiers) if not each.is_base), 0))


def own_row(rows: Sequence[Mapping[str, Any]], own: Mapping[str, Any] | None) -> int | None:
    """Number of the first row with the classifier's own noise, and with its vote if there is such a row; None if none.

    Sigmas agree if they are the same to four digits, as tables show them.

    Args:
        rows: rows of votes.
        own: `own_smoothing` of the setting; None if it is unknown.
    """
    if own is None:
        return None
    noise = (own["noise"], shown_sigma(own["sigma"]))
    found = [number for number, row in enumerate(rows) if (row["noise"], shown_sigma(row["sigma"])) == noise]
    return next((number for number in found if rows[number]["vote"] == own["vote"]), found[0] if found else None)


def shown_sigma(sigma: float | None) -> str:
    """A standard deviation to four digits, as tables show it; `-` for None."""
    return "-" if sigma is None else f"{sigma:.4g}"


def attack_label(setting: Mapping[str, Any]) -> str:
    """The name of the attack of a setting or a row as tables show it; empty without an attack."""
    name = setting.get("attack")
    return "" if name in (None, "none") else format_attack(name, setting.get("steps"))


def noise_words(row: Mapping[str, Any]) -> str:
    """The input noise of a row or a setting: `sigma 0.25`, with its distribution unless that is Gaussian."""
    sigma = format_sigma(row["sigma"], row["sigma_normalized"])
    return sigma if row["noise"] == "gaussian" or row["sigma"] == 0 else f"{row['noise']} {sigma}"


def _evaluate(result: Result) -> list[ShownClassifier]:
    tensors, groups = result.tensors, dict[tuple[Any, ...], list[int]]()
    for number, row in enumerate(result.rows):
        groups.setdefault((row["vote"], row["noise"], row["sigma"]), []).append(number)
    votes = [row for row in result.rows if row["vote"] != ONE_DRAW]
    number = own_row(votes, result.setting.get("own_smoothing"))
    own = None if number is None else tuple(votes[number][name] for name in ("vote", "noise", "sigma"))
    shown = list[ShownClassifier]()
    for group, rows in groups.items():
        vote = group[0]
        rows.sort(key=lambda number: result.rows[number]["num_samples"])
        row = result.rows[rows[0]]
        base = vote == ONE_DRAW
        adversarial = tensors.get("adversarial")
        shown.append(
            ShownClassifier(
                format_base(result.setting, "one draw, no input noise") if base else f"{vote} vote, {noise_words(row)}",
                vote,
                row["sigma"],
                [result.rows[number]["num_samples"] for number in rows],
                [_of_row(tensors, "clean", number) for number in rows],
                [_of_row(tensors, "robust", number) for number in rows] if "robust.right" in tensors else [],
                attack_label(row),
                None if adversarial is None else adversarial[int(tensors["setting"][rows[0]])],
                base,
                is_own=group == own,
            )
        )
    return shown


def _of_row(tensors: dict[str, Tensor], images: str, row: int) -> ImageOutcomes:
    shares = tensors.get(f"{images}.shares")
    return ImageOutcomes.of_runs(
        tensors[f"{images}.right"][row],
        margin=tensors[f"{images}.margin"][row, 0],
        draws=tensors[f"{images}.draws"][row, 0],
        shares=None if shares is None else shares[row],
    )


def _worst_case(result: Result) -> list[ShownClassifier]:
    shown = list[ShownClassifier]()
    for network, prefix in networks(result).items():
        right = result.tensors[f"{prefix}.right"]
        row = next(row for row in result.rows if row["network"] == network)
        base = prefix == "mean"
        clean, attacked, prefixes = _recorded(
            result,
            ImageOutcomes.of_runs(right[0]),
            ImageOutcomes.of_runs(right[-1]),
            (f"{prefix}.clean", f"{prefix}.worst"),
            alpha=row["alpha"],
        )
        shown.append(
            ShownClassifier(
                "mean network (no noise)" if base else f"{row['vote']} vote, {noise_words(row)}",
                ONE_DRAW if base else row["vote"],
                row["sigma"],
                [row["num_samples"]],
                [clean],
                [attacked],
                "worst case",
                result.tensors.get(f"{prefix}.adversarial"),
                base,
                prefixes,
            )
        )
    return shown


def _recorded(
    result: Result,
    clean: ImageOutcomes,
    attacked: ImageOutcomes,
    sets: tuple[str, str],
    *,
    alpha: float | None = None,
) -> tuple[ImageOutcomes, ImageOutcomes, list[ShownPrefix]]:
    """Outcomes of all votes with the record of the first one on the kept images, and that vote after fewer draws.

    Args:
        result: a result with a record (`tally_and_record`), or an older one without.
        clean: outcomes on clean images.
        attacked: outcomes on attacked images.
        sets: what the names of their tensors begin with.
        alpha: error probability of a prediction vote that abstains; None if it never does.
    """
    tensors = result.tensors
    if any(f"{each}.shares" not in tensors for each in sets):
        return clean, attacked, []
    counts: list[int] = result.setting["kept_num_samples"]
    steps = list[list[ImageOutcomes]]()
    for each in sets:
        shares, stops = tensors[f"{each}.shares"], tensors.get(f"{each}.decided_after")
        if shares.ndim == 2:  # the mean network, whose vote is a single draw
            shares = shares[None]
        labels = tensors["labels"][: shares.shape[1]]
        steps.append([])
        for place, of_count in enumerate(shares):
            predicted = of_count.argmax(1)
            if alpha is not None:
                predicted = predict_from_counts((of_count * counts[place]).round().long(), alpha)
            steps[-1].append(
                ImageOutcomes(
                    (predicted == labels).double(),
                    torch.zeros(len(labels), dtype=torch.bool),
                    true_margin(of_count, labels),
                    None if stops is None else stops[place],
                    of_count,
                    predicted,
                )
            )
    whole = [
        replace(outcomes, **{part: getattr(last[-1], part) for part in ("margin", "draws", "shares", "predicted")})
        for outcomes, last in zip((clean, attacked), steps, strict=True)
    ]
    fewer = zip(counts, *(of_set[:-1] for of_set in steps), strict=False)
    return whole[0], whole[1], [ShownPrefix(*step) for step in fewer]


def networks(result: Result) -> dict[str, str]:
    """The networks of a worst-case result, with the prefixes of their tensors."""
    names = dict.fromkeys(row["network"] for row in result.rows)
    prefixes = {name: name.partition(" ")[0] for name in names}
    return {name: prefix for name, prefix in prefixes.items() if f"{prefix}.right" in result.tensors}


def tried_shares(right: Tensor) -> Tensor:
    """Share of right votes of each image on each line of a network, (rows, images), the mean over runs.

    An image with no right vote on a line is broken, and later attacks of the same run skip it: their lines repeat the
    votes on its final example, which are left out of the mean. The share is NaN where an attack was tried in no run.

    Args:
        right: `PREFIX.right` of a worst-case result, (rows, runs, images).
    """
    before = (right == 0).cumsum(0).roll(1, 0) > 0  # whether this or an earlier line broke the image, one line down
    before[0] = before[-1] = False  # clean images, and the final votes of the worst case, are of all images
    return right.double().masked_fill(before, torch.nan).nanmean(1)


def _certify(result: Result) -> list[ShownClassifier]:
    tensors, shown = result.tensors, list[ShownClassifier]()
    sigmas = dict.fromkeys((row["sigma"], row["sigma_normalized"]) for row in result.rows)
    for number, sigma in enumerate(sigmas):
        shares = tensors["counts"][number].double() / tensors["counts"][number].sum(1, keepdim=True)
        predicted = tensors["predicted"][number]
        right = (predicted == tensors["labels"]).double()
        outcomes = ImageOutcomes(
            right,
            torch.zeros(len(right), dtype=torch.bool),
            true_margin(shares, tensors["labels"]),
            None,
            shares,
            predicted,
        )
        draws = result.setting["num_samples"]
        shown.append(
            ShownClassifier(f"prediction vote, {format_sigma(*sigma)}", "prediction", sigma[0], [draws], [outcomes])
        )
    return shown


def true_margin(shares: Tensor, labels: Tensor) -> Tensor:
    """Share of the true class minus the largest other share, (N,), from shares (N, K) and labels (N,)."""
    places = labels[:, None]
    others = shares.scatter(1, places, -1.0)
    return shares.gather(1, places)[:, 0] - others.amax(1)


def _check(result: Result) -> list[ShownClassifier]:
    tensors, setting = result.tensors, result.setting
    clean, attacked = (ImageOutcomes.of_runs(tensors[f"{name}.accuracy"][None]) for name in ("clean", "white_box"))
    clean, attacked, prefixes = _recorded(result, clean, attacked, ("clean", "white_box"))
    name = f"{setting['vote']} vote, {noise_words(setting)}"
    attack, adversarial = format_attack("pgd", setting["steps"]), tensors.get("adversarial")
    return [
        ShownClassifier(
            name,
            setting["vote"],
            setting["sigma"],
            [setting["num_samples"]],
            [clean],
            [attacked],
            attack,
            adversarial,
            prefixes=prefixes,
        )
    ]


def _attack(result: Result) -> list[ShownClassifier]:
    tensors, (row,) = result.tensors, result.rows
    clean, attacked = (ImageOutcomes.of_runs(tensors[f"{name}.right"][None]) for name in ("clean", "robust"))
    name = f"{row['vote']} vote, {noise_words(row)}"
    return [
        ShownClassifier(
            name,
            row["vote"],
            row["sigma"],
            [row["num_samples"]],
            [clean],
            [attacked],
            attack_label(row),
            tensors.get("adversarial"),
        )
    ]


def _examples(result: Result) -> list[ShownClassifier]:
    """Single draws, which are the first row, and the vote."""
    tensors, shown = result.tensors, list[ShownClassifier]()
    votes = result.setting["votes_per_image"]
    for number, row in enumerate(result.rows):
        draws = number == 0
        counts = [
            (tensors[f"{images}.right_draws"] / tensors[f"{images}.draws"])
            if draws
            else tensors[f"{images}.right"] / votes
            for images in ("clean", "robust")
        ]
        clean, attacked = (ImageOutcomes.of_runs(shares[None]) for shares in counts)
        prefixes = list[ShownPrefix]()
        if not draws:
            clean, attacked, prefixes = _recorded(result, clean, attacked, ("clean", "robust"))
        noise = noise_words(row)
        shown.append(
            ShownClassifier(
                f"single draws, {noise}" if draws else f"{row['vote']} vote, {noise}",
                ONE_DRAW if draws else row["vote"],
                row["sigma"],
                [row["num_samples"]],
                [clean],
                [attacked],
                row["attack"],
                tensors.get("adversarial"),
                draws,
                prefixes,
            )
        )
    return shown


def all_classifiers(result: Result) -> list[ShownClassifier]:
    """`shown_classifiers`, and of a sweep those of its other votes after them."""
    shown = shown_classifiers(result)
    if result.kind == "sweep" and shown:
        others = [vote for vote in result.setting["votes"] if vote != result.summary["best"]["vote"]]
        shown += [each for vote in others for each in _sweep_of_vote(result, vote)]
    return shown


def _sweep(result: Result) -> list[ShownClassifier]:
    """One classifier for each sigma, by the vote of the best setting, with the best sigma first."""
    return _sweep_of_vote(result, result.summary["best"]["vote"]) if "right" in result.tensors else []


def _sweep_of_vote(result: Result, name: str) -> list[ShownClassifier]:
    setting, right, best = result.setting, result.tensors["right"], result.summary["best"]
    vote = setting["votes"].index(name)
    normalized = setting["sigmas_normalized"] or [None] * len(setting["sigmas"])
    shown = list[ShownClassifier]()
    for number, sigma in enumerate(setting["sigmas"]):
        clean, *attacked = (
            [ImageOutcomes.of_runs(kind[number, vote, count]) for count in range(len(setting["num_samples"]))]
            for kind in right
        )
        shown.append(
            ShownClassifier(
                f"{name} vote, {format_sigma(sigma, normalized[number])}",
                name,
                sigma,
                list(setting["num_samples"]),
                clean,
                attacked[0] if attacked else [],
                attack_label(setting),
                result.tensors.get("adversarial") if (name, sigma) == (best["vote"], best["sigma"]) else None,
            )
        )
    shown.insert(0, shown.pop(setting["sigmas"].index(best["sigma"])))
    return shown


_READERS: dict[str, Callable[[Result], list[ShownClassifier]]] = {
    "attack": _attack,
    "certify": _certify,
    "check": _check,
    "evaluate": _evaluate,
    "examples": _examples,
    "sweep": _sweep,
    "worst-case": _worst_case,
}
