"""The JSON data of server-sent events, by the route that sends them and by the name of the event.

The K classes are numbered from 0; an image has the shape (C, H, W) that /v1/model states. Values are rounded to 6
digits after the point.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from smoothed.serve.schemas import ErrorAnswer, Prediction
from smoothed.serve.settings import DRAWS_OF_A_STEP

_SHARES = "the share of each class, by its number: K numbers in [0, 1] that sum to 1"
_PNG = "base64 text of a PNG file of at most 224 x 224 pixels"


class _EventData(BaseModel):
    model_config = ConfigDict(extra="forbid")


class MeanNetworkAnswer(_EventData):
    """What the network without noise says of the image."""

    class_: int = Field(alias="class", description="its class, an integer in 0..K-1")
    probabilities: list[float] = Field(description="its softmax, by class: K numbers in [0, 1] that sum to 1")


class SmallVote(_EventData):
    """The vote that an attack is watched by."""

    class_: int = Field(alias="class", description="its class, an integer in 0..K-1; ties go to the lowest class")
    shares: list[float] = Field(description=_SHARES)
    draws: int = Field(description=f"its number of draws, an integer in 1..{DRAWS_OF_A_STEP}, at most num_samples")


class RaceStart(_EventData):
    """The first event of a vote."""

    mean_network_class: int = Field(description="class of the network without noise, an integer in 0..K-1")
    clean_png: str = Field(description=f"the image without noise: {_PNG}")
    num_samples: int = Field(description="number of draws M that follow, an integer of at least 1")


class RaceDraw(_EventData):
    """One draw: each draw whose number is a multiple of `every`, and the last one."""

    draw: int = Field(description="number of the draw, an integer in 1..M")
    class_: int = Field(alias="class", description="class of this draw alone, an integer in 0..K-1")
    shares: list[float] = Field(description=f"of the vote so far, {_SHARES}")
    low: list[float] | None = Field(
        description="lower bounds of the shares' 95 % intervals, K numbers in [0, 1]; null for a vote without intervals"
    )
    high: list[float] | None = Field(description="upper bounds of the same intervals, K numbers in [0, 1], or null")
    png: str | None = Field(None, description=f"the noisy copy of this draw: {_PNG}; left out beyond `pictures`")


class RaceStop(_EventData):
    """The draw at which a rule would have ended the vote."""

    rule: Literal["exact", "confident"] = Field(description="the rule: exact or confident")
    draw: int = Field(description="number of the draw, an integer in 1..M")
    class_: int = Field(alias="class", description="class of the vote by then, an integer in 0..K-1")


class RaceEnd(Prediction):
    """The last event of a vote: the answer of /v1/predict, and that of the network without noise."""

    model_config = ConfigDict(extra="forbid")

    mean_network: MeanNetworkAnswer = Field(
        description="what the network without noise says: its class, and probabilities, K numbers in [0, 1]"
    )


class AttackStart(_EventData):
    """The first event of an attack."""

    label: int = Field(
        description="class that the attack leads away from, an integer in 0..K-1: `label` of the request, or else the "
        "class of the network without noise"
    )
    vote: SmallVote = Field(
        description=f"a vote on the clean image: class, shares (K numbers), and draws, 1..{DRAWS_OF_A_STEP}"
    )


class AttackStep(_EventData):
    """One gradient step."""

    step: int = Field(description="number of the step, an integer from 1 to `steps`")
    loss: float = Field(
        description="cross-entropy of the label after this step in nats, a number of at least 0: for pgd that of one "
        "draw, for epgd that of the mean probabilities of `eot_samples` draws; the attack has seen none of these draws"
    )
    linf: float = Field(description="largest change of a pixel so far, a number in [0, eps]")
    mean_network_class: int = Field(
        description="class of the network without noise on the image of this step, an integer in 0..K-1"
    )
    one_draw_class: int = Field(description="class of one draw on the image of this step, an integer in 0..K-1")
    vote: SmallVote = Field(
        description="a vote on the image of this step with the same draws as before: class, shares (K numbers), and "
        f"draws, 1..{DRAWS_OF_A_STEP}"
    )
    png: str = Field(description=f"the image of this step: {_PNG}")
    difference_png: str = Field(
        description=f"change of the pixels times difference_factor, around a middle grey: {_PNG}"
    )
    difference_factor: int = Field(description="an integer of at least 1, for all steps the same")


class AttackEnd(_EventData):
    """The last event of an attack."""

    png: str = Field(description="the attacked image in full size, rounded to 8 bits: base64 text of a PNG file")
    image: list[list[list[float]]] = Field(
        description="the attacked image as an array (C, H, W) of numbers in [0, 1], as /v1/explore/vote takes it"
    )
    linf: float = Field(description="largest change of a pixel, a number in [0, eps]")
    label: int = Field(description="class that the attack led away from, an integer in 0..K-1")
    turned_at: int | None = Field(
        description="the first step whose vote has another class than that on the clean image, from 1 to `steps`; null "
        "for none"
    )


RACE_EVENTS: dict[str, type[BaseModel]] = {
    "start": RaceStart,
    "draw": RaceDraw,
    "stop": RaceStop,
    "end": RaceEnd,
    "error": ErrorAnswer,
}
ATTACK_EVENTS: dict[str, type[BaseModel]] = {
    "start": AttackStart,
    "step": AttackStep,
    "end": AttackEnd,
    "error": ErrorAnswer,
}


def event_schema(events: dict[str, type[BaseModel]]) -> dict[str, Any]:
    """The JSON schema of a stream: one of several kinds of data, each titled with the name of its event."""
    kinds = []
    for name, data in events.items():
        schema = data.model_json_schema()
        kinds.append({**_inlined(schema, schema.pop("$defs", {})), "title": name})
    return {"description": "the data of one event; titles are the names of events", "oneOf": kinds}


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:  # noqa: ANN401 - a part of a JSON schema
    """A part of a schema in which each reference is replaced by what it refers to; its own description goes first."""
    if isinstance(part, list):
        return [_inlined(each, definitions) for each in part]
    if not isinstance(part, dict):
        return part
    rest = {name: _inlined(value, definitions) for name, value in part.items() if name != "$ref"}
    if "$ref" in part:
        return {**_inlined(definitions[part["$ref"].rpartition("/")[2]], definitions), **rest}
    return rest
