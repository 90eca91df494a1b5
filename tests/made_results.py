"""Results of `evaluate` of any size, made from random numbers, and HTML pages as trees of tags and texts."""

import json
from html.parser import HTMLParser

import torch

import smoothed
from smoothed.evaluation.results import PairedGain
from smoothed.utils.intervals import interval

VOID = {"meta", "link", "input", "img", "br", "hr"}


def evaluated(
    images=40, *, side=8, channels=3, classes=4, counts=(1, 8), votes=("prediction", "soft"), runs=2, seed=0, kept=None,
    name="made", attack="pgd", sigmas=(0.25,), own=None, is_random=True,
):  # fmt: skip
    """A result of `evaluate` on `images` random images: a row for the base, then one for each sigma, vote and M.

    The labels and pixels are those of the seed 0 whatever the seed, so that results of two seeds have the same images.
    """
    kept = images if kept is None else kept
    of_data, of_votes = (torch.Generator().manual_seed(number) for number in (0, seed + 1))
    labels = torch.randint(classes, (images,), generator=of_data)
    pixels = torch.rand(kept, channels, side, side, generator=of_data)
    settings = [("none", 1, 0.0), *((vote, count, sigma) for sigma in sigmas for vote in votes for count in counts)]
    tensors = {
        "labels": labels,
        "images": pixels,
        "setting": torch.tensor([0, *(1 + sigmas.index(sigma) for _, _, sigma in settings[1:])]),
    }
    change = torch.rand(1 + len(sigmas), kept, channels, side, side, generator=of_votes) - 0.5
    tensors["adversarial"] = (pixels + change * 16 / 255).clamp(0, 1)
    for kind, favour in (("clean", 1.5), ("robust", 0.3)):
        logits = torch.randn(len(settings), runs, images, classes, generator=of_votes)
        logits.scatter_add_(
            3, labels[None, None, :, None].expand(*logits.shape[:3], 1), torch.full_like(logits, favour)
        )
        shares = logits.softmax(3)
        true = shares.gather(3, labels[None, None, :, None].expand(*shares.shape[:3], 1))
        others = shares.scatter(3, labels[None, None, :, None].expand(*shares.shape[:3], 1), -1.0).amax(3)
        tensors[f"{kind}.margin"] = true[..., 0] - others
        tensors[f"{kind}.right"] = tensors[f"{kind}.margin"] > 0
        most = torch.tensor([count for _, count, _ in settings])[:, None, None]
        stopped = torch.randint(1, 100, (len(settings), runs, images), generator=of_votes)
        tensors[f"{kind}.draws"] = torch.minimum(stopped, most).int()
        tensors[f"{kind}.shares"] = shares[:, 0, :kept]
    common = {
        "model": name, "noise": "gaussian", "attack": attack, "eps": 8 / 255, "norm": "linf", "steps": 7,
        "eot_samples": 1, "max_queries": None, "sees": None, "sources": [], "images": images, "runs": runs,
        "precision": "float32", "seed": seed,
    }  # fmt: skip
    rows = []
    for number, (vote, count, sigma) in enumerate(settings):
        row = {**common, "vote": vote, "num_samples": count, "sigma": sigma, "sigma_normalized": 4 * sigma}
        for kind in ("clean", "robust"):
            by_run = tensors[f"{kind}.right"][number].double().mean(1)
            mean = float(by_run.mean())
            row |= {kind: mean, f"{kind}_interval": list(interval(mean * images, images))}
            row[f"{kind}_std"] = float(by_run.std()) if runs > 1 else 0.0
        rows.append(row)
    comparisons = []
    for place, (sigma, vote) in enumerate((sigma, vote) for sigma in sigmas for vote in votes):
        last = len(counts) * (place + 1)
        for kind, label in (("clean", "clean"), ("robust", "PGD-7")):
            before, after = (tensors[f"{kind}.right"][number].double().mean(0) for number in (0, last))
            title = f"{vote} vote, M = {counts[-1]}, sigma {sigma}, over one draw"
            comparisons.append(PairedGain.of(title, label, before, after))
    names = [f"class {number}" for number in range(classes)]
    return smoothed.Result(
        "evaluate",
        rows,
        setting={**{key: common[key] for key in ("attack", "eps", "norm", "steps", "eot_samples", "max_queries", "sees",
                                                 "precision", "seed", "runs")}, "layer": None, "kept_images": kept,
                 "random_network": is_random, "own_smoothing": own},
        model={"name": name, "type": "Made", "weights": "0" * 16, "parameters": 1234, "outputs": classes,
               "classes": names},
        data={"name": "random images", "images": images, "classes": names, "classes_checked": "names",
              "pixels": "1" * 16, "labels": "2" * 16},
        provenance={"smoothed": "0.1.0", "torch": "2", "accelerate": "1", "python": "3", "device": "2 cores",
                    "revision": None, "command": "smoothed evaluate", "seed": seed, "date": "2026-12-01T00:00:00+00:00",
                    "seconds": 83.2},
        comparisons=comparisons,
        tensors=tensors,
    )  # fmt: skip


class Page(HTMLParser):
    """The tags of a page with their attributes and texts; an error if a tag is not closed where it should be.

    Attributes:
        tags: name and attributes of each tag, in their order.
        texts: for each of them the text inside of it.
    """

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag}: {names}"
        self.tags.append((tag, dict(attributes)))
        self.texts.append("")
        if tag not in VOID:
            self._open.append((tag, len(self.tags) - 1))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.texts.append("")

    def handle_endtag(self, tag):
        assert [name for name, _ in self._open[-1:]] == [tag], f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, text):
        for _, number in self._open:
            self.texts[number] += text

    def all(self, tag, **attributes):
        """The texts of all tags of a name with these attributes, in which runs of spaces are one."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            " ".join(text.split())
            for (name, has), text in zip(self.tags, self.texts, strict=True)
            if name == tag and all(has.get(key) == value for key, value in wanted.items())
        ]

    @property
    def text(self):
        """All visible text."""
        (body,) = self.all("body")
        return body

    @property
    def data(self):
        """What the script of the page reads; None on a page without images."""
        found = self.all("script", id="data")
        return json.loads(found[0]) if found else None
