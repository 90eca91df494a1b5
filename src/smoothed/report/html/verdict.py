"""The verdict of a result: its main accuracies, whether voting helps, the threat model in words, and its origin."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from smoothed.attacks import ATTACKS, SINGLE_DRAW_ATTACKS
from smoothed.evaluation.paper_protocol.rows import ONE_DRAW
from smoothed.evaluation.results import PairedGain, Result
from smoothed.evaluation.sweep.paired import sign_test
from smoothed.evaluation.worst_case.rows import CLEAN, MEAN, WORST
from smoothed.report.format import (
    format_base,
    format_eps,
    format_interval,
    format_p_value,
    format_percent,
    format_sigma,
)
from smoothed.report.html.classifiers import attack_label, noise_words, own_row, shown_classifiers
from smoothed.utils.intervals import interval

KINDS: dict[str, str] = {
    "attack": "Adversarial examples",
    "certify": "Certified accuracy",
    "check": "Gradient-masking checks",
    "evaluate": "Accuracy under one attack",
    "examples": "Accuracy on saved adversarial examples",
    "sweep": "Sweep over sigma, votes and M",
    "train": "Training run",
    "worst-case": "Accuracy in the worst case",
}
"""What each kind of result measures."""


@dataclass(frozen=True)
class Headline:
    """An accuracy of the verdict.

    Attributes:
        name: what it is the accuracy on.
        of: the classifier.
        value: the accuracy, in [0, 1].
        bounds: its 95 % interval; None if it has none.
    """

    name: str
    of: str
    value: float
    bounds: tuple[float, float] | None = None

    @property
    def percent(self) -> str:
        """The accuracy in percent."""
        return format_percent(self.value)

    @property
    def range(self) -> str:
        """The interval in percent; empty if there is none."""
        return "" if self.bounds is None else f"{format_interval(self.bounds)} %"


@dataclass(frozen=True)
class GainLine:
    """The paired test of two classifiers on the same images.

    Attributes:
        name: what is compared.
        images: the images, in words.
        gain: difference of the accuracies in points.
        bounds: its 95 % interval in points.
        won, lost: number of images that only the one, or only the other, gets right more often; empty if unknown.
        p: p-value of the sign test on these; empty if unknown.
        reading: `helps`, `hurts`, or `may be chance`.
    """

    name: str
    images: str
    gain: str
    bounds: str
    won: str
    lost: str
    p: str
    reading: str

    @classmethod
    def of(cls, gain: PairedGain, before: Tensor | None = None, after: Tensor | None = None) -> "GainLine":
        """Describe a gain; `before` and `after` are the accuracies of the images, (N,), if they are known."""
        won = lost = p = ""
        if before is not None and after is not None:
            wins, losses = int((after > before).sum()), int((after < before).sum())
            won, lost, p = str(wins), str(losses), format_p_value(sign_test(wins, losses))
        low, high = (f"{100 * bound:+.1f}" for bound in gain.interval)
        reading = "may be chance" if not gain.significant else "helps" if gain.gain > 0 else "hurts"
        where = "clean images" if gain.images == "clean" else gain.images
        return cls(gain.name, where, f"{100 * gain.gain:+.1f}", f"{low} to {high}", won, lost, p, reading)


def headlines(result: Result) -> list[Headline]:
    """The main accuracies of a result."""
    return _HEADLINES[result.kind](result)


def shown_sigma_note(result: Result) -> str:
    """Which sigma the main accuracies of an `evaluate` with several are of, in a sentence; empty for other results."""
    rows = [row for row in result.rows if row.get("vote") != ONE_DRAW] if result.kind == "evaluate" else []
    if len({(row["noise"], row["sigma"]) for row in rows}) < 2:
        return ""
    own = result.setting.get("own_smoothing")
    number = own_row(rows, own)
    told = noise_words(rows[number or 0])
    if number is not None:
        return f"Of several sigmas, the accuracies here are those of the classifier's own: {told}."
    reason = (
        "the classifier's own is not known"
        if own is None
        else f"the classifier's own, {noise_words(own)}, is none of them"
    )
    return f"Of several sigmas, the accuracies here are those of the first, {told}: {reason}."


def gain_lines(result: Result) -> list[GainLine]:
    """The paired tests of a result's comparisons."""
    pairs = _pairs(result)
    if len(pairs) != len(result.comparisons):
        return [GainLine.of(gain) for gain in result.comparisons]
    return [GainLine.of(gain, *pair) for gain, pair in zip(result.comparisons, pairs, strict=True)]


def _pairs(result: Result) -> list[tuple[Tensor, Tensor]]:
    """The accuracies of the images that each comparison compares, in the order of the comparisons."""
    classifiers = shown_classifiers(result)
    base = next((each for each in classifiers if each.is_base), None)
    if base is None:
        return []
    others = [each for each in classifiers if not each.is_base]
    if result.kind == "worst-case":
        return [(base.decisive.right, each.decisive.right) for each in others]
    return [
        (before[-1].right, after[-1].right)
        for each in others
        for before, after in ((base.clean, each.clean), (base.attacked, each.attacked))
        if before
    ]


def verdict_sentence(result: Result) -> str:
    """Whether voting helps, in words; for other kinds of results, what the numbers say."""
    if result.kind == "check":
        return result.summary["sentence"]
    lines = gain_lines(result)
    if not lines:
        return ""
    under_attack = [line for line in lines if line.images != "clean images"] or lines
    where = "on clean images" if under_attack[0].images == "clean images" else "under attack"
    read = {reading: [line for line in under_attack if line.reading == reading] for reading in ("helps", "hurts")}
    if len(under_attack) == 1:
        line = under_attack[0]
        told = f"{line.gain} points (95 % interval {line.bounds})"
        if line.reading == "may be chance":
            return f"These images can't tell whether voting helps {where}: {told}."
        return f"Voting {line.reading} {where}: {told}."
    if not read["helps"] and not read["hurts"]:
        return f"These images can't tell whether any of the {len(under_attack)} votes helps {where}."
    parts = [
        f"{len(found)} of {len(under_attack)} votes {_verb(word, len(found))}" for word, found in read.items() if found
    ]
    others = len(under_attack) - sum(map(len, read.values()))
    return f"{' and '.join(parts)} {where}{'; what the others change may be chance' if others else ''}."


def _verb(reading: str, count: int) -> str:
    return reading if count == 1 else reading.removesuffix("s")


def _evaluate_headlines(result: Result) -> list[Headline]:
    found = list[Headline]()
    base = [row for row in result.rows if row["vote"] == ONE_DRAW]
    votes = [row for row in result.rows if row["vote"] != ONE_DRAW]
    shown = own_row(votes, result.setting.get("own_smoothing")) or 0
    of_shown = [row for row in votes if all(row[name] == votes[shown][name] for name in ("vote", "noise", "sigma"))]
    for row in [*sorted(of_shown, key=lambda row: row["num_samples"])[-1:], *base]:
        of = format_base(result.setting, "one draw, no input noise") if row["vote"] == ONE_DRAW else _vote(row)
        found.append(Headline("clean images", of, row["clean"], tuple(row["clean_interval"])))
        if row["robust"] is not None:
            found.append(Headline(f"under {attack_label(row)}", of, row["robust"], tuple(row["robust_interval"])))
    return found


def _worst_case_headlines(result: Result) -> list[Headline]:
    found = list[Headline]()
    for network in reversed(dict.fromkeys(row["network"] for row in result.rows)):
        rows = [row for row in result.rows if row["network"] == network]
        of = "mean network (no noise)" if network == MEAN else _vote(rows[-1])
        attacks = [row for row in rows if row["attack"] not in (CLEAN, WORST)]
        shown = {"clean images": rows[0], f"under {attacks[0]['attack']}, the first attack": attacks[0]}
        shown[f"worst case of {len(attacks)} attacks"] = rows[-1]
        for name, row in shown.items():
            accuracy = row["robust"]
            found.append(Headline(name, of, accuracy["mean"], tuple(accuracy["interval"])))
    return found


def _sweep_headlines(result: Result) -> list[Headline]:
    best = result.summary["best"]
    row = result.row(**{name: best[name] for name in ("vote", "num_samples", "sigma")})
    found = [Headline("clean images", f"best setting: {_vote(row)}", row["clean"], tuple(row["clean_interval"]))]
    if row["robust"] is not None:
        bounds = tuple(row["robust_interval"])
        found.append(Headline(f"under {attack_label(row)}", f"best setting: {_vote(row)}", row["robust"], bounds))
    return found


def _certify_headlines(result: Result) -> list[Headline]:
    found = list[Headline]()
    for sigma in dict.fromkeys(row["sigma"] for row in result.rows):
        rows = [row for row in result.rows if row["sigma"] == sigma]
        of = format_sigma(sigma, rows[0]["sigma_normalized"])
        found.append(Headline("clean images (PREDICT)", of, rows[0]["clean"], tuple(rows[0]["clean_interval"])))
        positive = [row for row in rows if row["radius"] > 0 and row["certified"] > 0] or rows[-1:]
        last = positive[-1]
        name = f"certified within L2 radius {last['radius']:g}"
        found.append(Headline(name, of, last["certified"], tuple(last["certified_interval"])))
    return found


def _image_headlines(result: Result) -> list[Headline]:
    """Those of the outcomes of the images, for kinds whose rows have no intervals."""
    found = list[Headline]()
    for each in shown_classifiers(result):
        of = f"{each.name}, M = {each.num_samples[-1]}"
        for name, outcomes in (("clean images", each.clean), (f"under {each.attack}", each.attacked)):
            if outcomes:
                value, count = float(outcomes[-1].right.mean()), len(outcomes[-1].right)
                found.append(Headline(name, of, value, interval(value * count, count)))
    return found


def _attack_headlines(result: Result) -> list[Headline]:
    (row,) = result.rows
    return [
        Headline(name, _vote(row), row[field], interval(row[field] * row["images"], row["images"]))
        for name, field in (("clean images", "clean"), (f"under {attack_label(row)}", "robust"))
    ]


def _examples_headlines(result: Result) -> list[Headline]:
    found = list[Headline]()
    for number, row in reversed(list(enumerate(result.rows))):
        of = _vote(row) if number else f"single draws, {noise_words(row)}"
        found.append(Headline("clean images", of, row["clean"], tuple(row["clean_interval"])))
        found.append(Headline(f"saved examples of {row['attack']}", of, row["robust"], tuple(row["robust_interval"])))
    return found


def _train_headlines(result: Result) -> list[Headline]:
    best = result.summary["kept"].get("best")
    if best is None:
        return []
    of = f"one forward pass per image, epoch {best['epoch']:g} (the best)"
    names = (("validation images, clean", "validation_clean"), ("validation images, PGD-7", "validation_robust"))
    return [Headline(name, of, best[field]) for name, field in names if best.get(field) is not None]


def _vote(row: Mapping[str, Any]) -> str:
    return f"{row['vote']} vote, M = {row['num_samples']}, {noise_words(row)}"


_HEADLINES: dict[str, Callable[[Result], list[Headline]]] = {
    "attack": _attack_headlines,
    "certify": _certify_headlines,
    "check": _image_headlines,
    "evaluate": _evaluate_headlines,
    "examples": _examples_headlines,
    "sweep": _sweep_headlines,
    "train": _train_headlines,
    "worst-case": _worst_case_headlines,
}


def _submissions(largest: int) -> str:
    if largest == 1:
        return "Each image is submitted once."
    return f"The same image may be submitted up to {largest} times."


def threat_model(result: Result) -> list[str]:
    """What the attacker knows and may do, in whole sentences."""
    setting, kind = result.setting, result.kind
    if kind in ("attack", "evaluate", "sweep"):
        return _one_attack(result)
    if kind == "worst-case":
        return [
            f"White-box attackers who know the whole network and its noise, but not the draws of the vote, change each "
            f"image within {format_eps(setting['eps'], 'linf')}.",
            f"For each image the worst example of all attacks counts. Gradient attacks take {setting['steps']} steps "
            f"and {setting['restarts']} start{'s' * (setting['restarts'] > 1)}; the tables below state the draws for "
            f"each gradient. A black-box attack tries {setting['queries']} candidates.",
            f"{_submissions(max(setting['resubmissions']))} All accuracies are those of fresh votes, which the attacks "
            "have not seen.",
        ]
    if kind == "check":
        return [
            f"The reference attack is PGD with {setting['steps']} steps, the mean loss of {setting['eot_samples']} "
            f"draws at each gradient, within {format_eps(setting['eps'], 'linf')}. The checks compare it with attacks "
            "that should be weaker."
        ]
    if kind == "certify":
        alpha = setting["alpha"]
        return [
            "No attack was run. A certificate holds against every change of an image within its L2 radius, with a "
            f"probability of at least {1 - alpha:g} for each image."
        ]
    if kind == "examples":
        row = result.rows[0]
        origin = "on this classifier" if row["same_classifier"] else f"on another classifier, {row['attacked_model']}"
        return [
            f"The examples were made beforehand by {row['attack']} within {format_eps(row['eps'], row['norm'])}, "
            f"{origin}. The votes use draws that the attack has not seen.",
            *([] if row["same_classifier"] else ["This is accuracy under transfer: a direct attack may be stronger."]),
        ]
    return ["Validation images are attacked by PGD-7 with one draw at each gradient, to choose the epoch that is kept."]


def _one_attack(result: Result) -> list[str]:
    setting, row = result.setting, result.rows[0]
    name = setting["attack"]
    if name == "none":
        return ["No attack was run: all accuracies are those on clean images."]
    attack, sources = attack_label(setting), row.get("sources") or ()
    if name not in ATTACKS:
        who = f"The attack {attack} is a function of the user's own; what it knows is not recorded."
    elif sources:
        who = (
            f"{attack}: the attacker does not know this network, and attacks others in its place: {', '.join(sources)}."
        )
    elif setting["max_queries"] is not None:
        who = (
            f"{attack}: a black-box attacker asks the classifier up to {setting['max_queries']} times for each image "
            f"and observes its {setting['sees']}."
        )
    else:
        draws = setting["eot_samples"] or 1
        seen = "one fresh draw" if draws == 1 else f"the mean over {draws} fresh draws"
        who = (
            f"{attack}: a white-box attacker knows the whole network and its noise, but not the draws of the vote; "
            f"each gradient sees {seen} of all noise."
        )
    sentences = [who, f"{_reach(setting['eps'], setting['norm'])} The votes use draws that the attack has not seen."]
    if name in SINGLE_DRAW_ATTACKS and not sources:
        sentences.append(
            "An attack with one draw at each gradient overestimates the robustness of a random defence: "
            "smoothed worst-case attacks harder."
        )
    return sentences


def _reach(eps: float, norm: str) -> str:
    """What the attack may change, in a sentence."""
    if norm == "l0":
        return f"It may change {eps:g} pixels of an image."
    if norm == "l2":
        return f"The change of an image has an L2 norm of at most {eps:g}, in pixel units of [0, 1]."
    return f"Each value of a pixel may change by at most {255 * eps:g}/255 (L-inf)."


def provenance(result: Result) -> list[tuple[str, str]]:
    """Where the numbers come from, as names and values."""
    origin, model, data = result.provenance, result.model, result.data
    versions = ", ".join(
        f"{name} {origin[name]}" for name in ("smoothed", "torch", "accelerate", "python") if origin.get(name)
    )
    seconds = origin.get("seconds")
    known = {
        "command": origin.get("command"),
        "seed": origin.get("seed"),
        "model": _joined(model.get("name"), model.get("type"), _counted(model.get("parameters"), "parameters")),
        "weights": model.get("weights"),
        "data": _joined(data.get("name"), _counted(data.get("images"), "images")),
        "pixels": data.get("pixels"),
        "labels": data.get("labels"),
        "versions": versions,
        "git revision": origin.get("revision"),
        "hardware": _joined(origin.get("device"), _several(origin.get("processes"), "processes")),
        "duration": None if seconds is None else duration(seconds),
        "finished": origin.get("date"),
    }
    return [(name, str(value)) for name, value in known.items() if value not in (None, "")]


def duration(seconds: float) -> str:
    """A time in words: `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _counted(number: int | None, what: str) -> str | None:
    return None if number is None else f"{number:,} {what}"


def _several(number: int | None, what: str) -> str | None:
    return None if number == 1 else _counted(number, what)


def _joined(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part)
