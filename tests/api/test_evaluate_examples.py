"""Votes on saved examples through the public function, for networks whose outcomes are known."""

import pytest
import torch

import smoothed
from smoothed.errors import ArgumentError

# Class 1 where the mean is above a half; the attack moves each image by 0.1 towards the other class.
INPUTS = torch.tensor([0.2, 0.45, 0.55, 0.8]).view(4, 1, 1, 1).expand(4, 1, 4, 4).contiguous()
LABELS = torch.tensor([0, 0, 1, 1])


def bright(inputs):
    mean = inputs.mean((1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], 1)


def across(model, inputs, labels, generator=None):  # noqa: ARG001 - an attack
    return (inputs + 0.1 * (1 - 2 * labels.view(-1, 1, 1, 1))).clamp(0, 1)


@pytest.fixture
def examples(tmp_path):
    path = tmp_path / "examples.safetensors"
    smoothed.attack(bright, (INPUTS, LABELS), attack=across, eps=0.1, examples=path)
    return path


def test_a_network_that_was_attacked_without_noise_votes_by_one_draw(examples):
    before = INPUTS.clone()
    result = smoothed.evaluate_examples(bright, examples, (INPUTS, LABELS), votes_per_image=3)
    assert [(row["clean"], row["robust"], row["num_samples"]) for row in result.rows] == [(1.0, 0.5, 1)] * 2
    assert result.tensors["clean.right"].tolist() == [3, 3, 3, 3]
    assert result.tensors["robust.right"].tolist() == [3, 0, 0, 3]
    assert torch.allclose(result.tensors["adversarial"], across(None, INPUTS, LABELS))
    assert torch.equal(result.tensors["images"], INPUTS)
    assert torch.equal(INPUTS, before)
    assert result.comparisons == []
    assert (result.kind, result.setting["examples"]["attack"]) == ("examples", "across")
    assert "The examples were made on this model" in str(result)


def test_the_gain_of_a_vote_is_that_of_its_images(examples):
    """The mean over images of the share of right votes less the share of right draws."""
    classifier = smoothed.Smoothed(bright, smoothed.Gaussian(0.5), num_samples=5)
    result = smoothed.evaluate_examples(classifier, examples, (INPUTS, LABELS), votes_per_image=20, images=3)
    assert result.data["images"] == 3
    for gain, stream in zip(result.comparisons, ("clean", "robust"), strict=True):
        votes = result.tensors[f"{stream}.right"] / 20
        draws = result.tensors[f"{stream}.right_draws"] / result.tensors[f"{stream}.draws"]
        assert gain.gain == pytest.approx(float((votes - draws).mean()), abs=1e-6)
    assert result.tensors["clean.draws"].tolist() == [100] * 3
    assert "not on this model with this noise" in str(result)


@pytest.mark.parametrize("sigma", [0.2, 0.05])
def test_a_network_that_is_not_smoothed_has_noise_vote_and_draws_of_the_attack(sigma, tmp_path):
    path, noise = tmp_path / "examples.safetensors", smoothed.Uniform(sigma)
    attacked = smoothed.Smoothed(bright, noise, vote="soft", num_samples=3)
    smoothed.attack(attacked, (INPUTS, LABELS), attack=across, eps=0.1, examples=path)
    found, expected = (
        smoothed.evaluate_examples(classifier, path, (INPUTS, LABELS), votes_per_image=5, name="bright")
        for classifier in (bright, attacked)
    )
    assert found.rows == expected.rows
    assert [found[-1][key] for key in ("noise", "sigma", "vote", "num_samples")] == ["uniform", sigma, "soft", 3]
    assert found[-1]["same_classifier"]
    other = smoothed.Smoothed(bright, num_samples=2)
    assert smoothed.evaluate_examples(other, path, (INPUTS, LABELS))[-1]["num_samples"] == 2


def salt(inputs):
    return inputs * 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"noise": salt},
            "because the noise of the attack, salt, is a function of one's own, got bright; for example",
        ),
        ({"noise": None, "vote": torch.sin}, "because the vote of the attack, sin, is a function of one's own"),
    ],
)
def test_noise_and_votes_of_ones_own_are_asked_for(options, message, tmp_path):
    path = tmp_path / "examples.safetensors"
    attacked = smoothed.Smoothed(bright, **options, num_samples=2)
    smoothed.attack(attacked, (INPUTS, LABELS), attack=across, eps=0.1, examples=path)
    with pytest.raises(ArgumentError, match=f"classifier: expected a Smoothed classifier, {message}"):
        smoothed.evaluate_examples(bright, path, (INPUTS, LABELS))
    assert smoothed.evaluate_examples(attacked, path, (INPUTS, LABELS))[-1]["num_samples"] == 2


def test_errors(examples, tmp_path):
    with pytest.raises(ArgumentError, match=r"examples: expected a file that `smoothed attack` wrote, got .*nowhere"):
        smoothed.evaluate_examples(bright, tmp_path / "nowhere", (INPUTS, LABELS))
    message = (
        r"data: expected the 4 images of arrays that were attacked to make .* differ; the attack was smoothed\.attack\("
    )
    with pytest.raises(ArgumentError, match=message):
        smoothed.evaluate_examples(bright, examples, (1 - INPUTS, LABELS))
