"""The JSON of requests and answers. Errors repeat the descriptions of fields, which say what is expected."""

import difflib
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smoothed.serve.refusals import Refusal, invalid
from smoothed.serve.settings import DRAWS_OF_A_STEP, PICTURES, ServeSettings

IMAGE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}},
        {"type": "object", "properties": {"png": {"type": "string", "contentEncoding": "base64"}}},
        {"type": "object", "properties": {"id": {"type": "integer"}}},
    ]
}
_SEED = "an integer of at most 64 bits"


class ImageQuestion(BaseModel):
    """An image alone, to be voted on as the model says."""

    model_config = ConfigDict(extra="forbid")

    image: Any = Field(
        description='an array (channels, height, width) of numbers in [0, 1], {"png": BASE64} with an image file, or '
        '{"id": NUMBER} of an example image',
        json_schema_extra=IMAGE_SCHEMA,
    )


class _Question(ImageQuestion):
    sigma: float | None = Field(
        None, ge=0, le=1, description="the deviation of the input noise in pixel units, a number in [0, 1]"
    )


class VoteQuestion(_Question):
    """A vote on one image. What is left out is taken from the model."""

    vote: str | None = Field(None, description="the name of a vote, one of those of /v1/model")
    num_samples: int | None = Field(None, ge=1, description="the number of draws M, an integer of at least 1")
    stop: Literal["exact", "confident"] | None = Field(
        "exact", description="the rule that ends the draws early: exact, confident, or null for all draws"
    )
    error: float = Field(
        0.001, gt=0, lt=1, description="the probability of another class under the confident rule, a number in (0, 1)"
    )
    deadline_ms: float | None = Field(None, gt=0, description="a number of milliseconds above 0")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description=_SEED)


class RaceQuestion(VoteQuestion):
    """A vote that is watched draw by draw, to the last of its draws; `stop` has no effect."""

    seed: int = Field(ge=-(2**63), lt=2**63, description=_SEED)  # pyright: ignore[reportIncompatibleVariableOverride]
    every: int = Field(1, ge=1, description="the number of draws from one event to the next, an integer of at least 1")
    pictures: int = Field(
        0, ge=0, le=PICTURES, description=f"the number of noisy copies to send, an integer in 0..{PICTURES}"
    )


class AttackQuestion(_Question):
    """An attack on the noisy classifier, watched step by step."""

    label: int | None = Field(
        None,
        ge=0,
        description="the number of the true class, an integer of at least 0; if left out, that of the mean network",
    )
    vote: str | None = Field(None, description="the name of the vote at each step, one of those of /v1/model")
    num_samples: int | None = Field(
        None,
        ge=1,
        description=f"the number of draws M, an integer of at least 1; a step has {DRAWS_OF_A_STEP} of them at most",
    )
    attack: Literal["pgd", "epgd"] = Field("pgd", description="the name of the attack, pgd or epgd")
    eps: float = Field(8 / 255, ge=0, le=1, description="the L-inf radius in pixel units, a number in [0, 1]")
    steps: int = Field(7, ge=1, description="the number of gradient steps, an integer of at least 1")
    eot_samples: int = Field(
        8,
        ge=1,
        description="the number of draws for one gradient of epgd, an integer of at least 1; pgd takes one",
    )
    seed: int = Field(ge=-(2**63), lt=2**63, description=_SEED)


class ClassShare(BaseModel):
    """The share of one class, with its 95 % interval where the vote has one."""

    class_: int = Field(alias="class", description="number of the class, an integer in 0..K-1")
    name: str = Field(description="name of the class")
    share: float = Field(description="a number in [0, 1]")
    low: float | None = Field(description="lower bound of its 95 % interval, a number in [0, 1], or null")
    high: float | None = Field(description="upper bound of the same interval, a number in [0, 1], or null")


class Prediction(BaseModel):
    """The answer to a vote."""

    class_: int = Field(alias="class", description="the class with the highest score; ties go to the lowest class")
    class_name: str = Field(description="name of that class")
    shares: list[ClassShare] = Field(
        description="all K classes, best first: objects with class, name, share, low and high, the bounds of the 95 % "
        "interval of the share"
    )
    draws: int = Field(description="number of draws that were counted")
    ended: Literal["num_samples", "exact", "confident", "deadline"] = Field(description="why the draws ended")
    margin: float = Field(description="best share minus the next, a number in [0, 1]")
    seconds: float = Field(description="time from the end of the request to the answer")
    model: str = Field(description="name of the model")
    version: str = Field(description="version of this package")


class ErrorAnswer(BaseModel):
    """The answer to a request that is not carried out."""

    error: str = Field(description="short code")
    detail: str = Field(description="the field, what was expected, and what came")


AnyQuestion = TypeVar("AnyQuestion", bound=_Question)


def read_question(
    kind: type[AnyQuestion], values: object, settings: ServeSettings, *, strict: bool = True
) -> AnyQuestion:
    """Check the fields of a request.

    Args:
        kind: the fields.
        values: parsed JSON, or the fields of a form.
        settings: limits.
        strict: whether numbers must be numbers; False also reads them from text, as a form has it.

    Raises:
        Refusal: a field is missing, unknown, of another type, or out of range.
    """
    if not isinstance(values, dict):
        raise invalid("body", "a JSON object", f"a {_KINDS.get(type(values), type(values).__name__)}")
    if settings.predict_only and (chosen := sorted(values.keys() - ImageQuestion.model_fields)):
        raise invalid("body", "the field image alone, for this service fixes the vote", f"the field {chosen[0][:40]!r}")
    try:
        question = kind.model_validate(values, strict=strict)
    except ValidationError as error:
        raise _refusal(kind, error) from None
    for name in ("num_samples", "steps", "eot_samples"):
        value, limit = getattr(question, name, None), getattr(settings, name)
        if value is not None and value > limit:
            raise invalid(name, f"at most {limit}, the limit of this service", str(value))
    deadline, longest = getattr(question, "deadline_ms", None), 1000 * settings.deadline_seconds
    if deadline is not None and deadline > longest:
        raise invalid("deadline_ms", f"at most {longest:g}, the limit of this service", f"{deadline:g}")
    return question


_KINDS = {list: "list", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}


def _refusal(kind: type[_Question], error: ValidationError) -> Refusal:
    """One error as a sentence; a field with a wrong name comes before those that seem to be missing."""
    found = error.errors(include_url=False, include_context=False)
    first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
    field = str(first["loc"][0]) if first["loc"] else "body"
    if first["type"] == "extra_forbidden":
        similar = difflib.get_close_matches(field, kind.model_fields, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        return invalid("body", f"the fields {', '.join(kind.model_fields)}", f"the field {field[:40]!r}{hint}")
    expected = kind.model_fields[field].description or "another value"
    got = "nothing" if first["type"] == "missing" else f"{first['input']!r:.80}"
    return invalid(field, expected, got)
