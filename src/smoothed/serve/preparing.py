"""From the body of a request to the work of the engine. It runs in threads beside the server's loop."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from smoothed.errors import ArgumentError
from smoothed.serve.counting import Count
from smoothed.serve.images import image_from_file, image_from_json
from smoothed.serve.refusals import Refusal, invalid
from smoothed.serve.schemas import AttackQuestion, RaceQuestion, VoteQuestion
from smoothed.serve.served import ServedModel
from smoothed.serve.settings import ServeSettings
from smoothed.serve.turns import VoteJob
from smoothed.smoothing.stopping import Confident, Exact, StoppingRule
from smoothed.smoothing.stopping.posterior import chance_table
from smoothed.smoothing.votes import Vote, resolve, vote_bound
from smoothed.utils.checks import check_choice


@dataclass(frozen=True)
class PreparedVote:
    """A vote that the engine can take.

    Attributes:
        job: the vote.
        vote: the function from logits to scores.
        name: name of the vote.
        seed: seed of a vote that runs alone; None for one that shares passes.
    """

    job: VoteJob
    vote: Vote
    name: str
    seed: int | None


def read_image(
    question: VoteQuestion | AttackQuestion, served: ServedModel, settings: ServeSettings
) -> Float[Tensor, "c h w"]:
    """The image of a request, on the CPU.

    Raises:
        Refusal: it is no image for this network.
    """
    if isinstance(question.image, bytes):
        return image_from_file(question.image, served.shape, settings.pixels)
    return image_from_json(question.image, served.images, served.shape, settings.pixels)


def prepare_vote(question: VoteQuestion, served: ServedModel, settings: ServeSettings, arrived: float) -> PreparedVote:
    """Decode the image and set up the count.

    Args:
        question: the vote.
        served: the model.
        settings: limits.
        arrived: time of `time.monotonic` from which the deadline counts.

    Raises:
        Refusal: a field does not fit the model.
    """
    name = check_model_fields(question, served)
    image = read_image(question, served, settings)
    vote = resolve(served.votes[name])
    total = _num_samples(question, served, settings)
    deadline = None if question.deadline_ms is None else arrived + question.deadline_ms / 1000
    rule = _rule(question)
    prepare_rule(rule, vote, total, len(served.classes))
    job = VoteJob(image, Count(vote, total, rule), question.stop or "", question.sigma, deadline)
    return PreparedVote(job, vote, name, question.seed)


def check_model_fields(question: VoteQuestion | AttackQuestion, served: ServedModel) -> str:
    """Check the fields that depend on the model; return the name of the vote.

    Raises:
        Refusal: there is no such vote or class, or the noise has one deviation only.
    """
    try:
        served.noise_config(question.sigma)
        name = getattr(question, "vote", None) or served.smoothing.vote_name
        check_choice(name, served.votes, "vote")
    except ArgumentError as error:
        raise Refusal(422, "invalid", str(error)) from None
    label = getattr(question, "label", None)
    if label is not None and label >= len(served.classes):
        raise invalid("label", f"the number of a class, 0..{len(served.classes) - 1}", str(label))
    return name


def prepare_rule(rule: StoppingRule | None, vote: Vote, total: int, classes: int) -> None:
    """Compute the table of `Confident` in this thread; in the engine's thread it would delay all other requests."""
    if isinstance(rule, Confident) and vote_bound(vote, classes).is_one_hot and total > 1:
        chance_table(total, classes, rule.delta, rule.prior_weight / classes)


def prepare_race(
    question: RaceQuestion, served: ServedModel, settings: ServeSettings
) -> tuple[RaceQuestion, Float[Tensor, "c h w"]]:
    """The race with all fields filled in, and its image.

    Raises:
        Refusal: a field does not fit the model.
    """
    name = check_model_fields(question, served)
    image = read_image(question, served, settings)
    total = _num_samples(question, served, settings)
    prepare_rule(Confident(question.error), resolve(served.votes[name]), total, len(served.classes))
    return question.model_copy(update={"vote": name, "num_samples": total}), image


def prepare_attack(
    question: AttackQuestion, served: ServedModel, settings: ServeSettings
) -> tuple[AttackQuestion, Float[Tensor, "c h w"]]:
    """The attack with the fields of its vote filled in, and its image.

    Raises:
        Refusal: a field does not fit the model.
    """
    name = check_model_fields(question, served)
    image = read_image(question, served, settings)
    total = _num_samples(question, served, settings)
    return question.model_copy(update={"vote": name, "num_samples": total}), image


def _num_samples(question: VoteQuestion | AttackQuestion, served: ServedModel, settings: ServeSettings) -> int:
    own = min(served.smoothing.num_samples, settings.num_samples)
    return own if question.num_samples is None else question.num_samples


def _rule(question: VoteQuestion) -> StoppingRule | None:
    if question.stop is None:
        return None
    return Exact() if question.stop == "exact" else Confident(question.error)
