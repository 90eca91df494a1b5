"""Verdicts on the paper's claims, by a fixed rule, from the results in a run's folder.

Each part of a claim estimates a difference with a 95 % interval. A part

- holds if its interval lies inside the claim's region,
- does not hold if its interval lies outside the region,
- is undecided if its interval includes an end of the region, or if a result is missing.

A claim holds if all its parts hold, and does not hold if one of them does not hold; otherwise it is undecided. The
intervals are not corrected for the number of parts. No claim holds too easily by this, because all parts have to hold,
but one of many parts may fail by chance.
"""

import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from smoothed.evaluation.results import Result
from smoothed.paper.catalog import DECLARATIONS
from smoothed.paper.claims import CLAIMS, Claim, Region
from smoothed.paper.declaration import sources_of
from smoothed.paper.estimates import ClaimEstimate, ClaimPart, NoEstimateError
from smoothed.paper.folder import RunFolder

Verdict = Literal["holds", "does not hold", "undecided"]
FIRST_VERDICTS: tuple[Verdict, ...] = ("does not hold", "undecided", "holds")
"""Verdicts of parts, from the one that decides on a claim before all others."""


@dataclass(frozen=True)
class JudgedPart:
    """A part with its verdict.

    Attributes:
        name: name of the part.
        results: names of the results that it is computed from.
        verdict: the verdict.
        estimate: the difference; None if it can't be computed.
        why: why it does not hold or is undecided.
        missing: names of the results that are not there.
    """

    name: str
    results: tuple[str, ...]
    verdict: Verdict
    estimate: ClaimEstimate | None = None
    why: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict.

    Attributes:
        claim: the claim.
        parts: its judged parts.
        folder: folder of the run.
    """

    claim: Claim
    parts: tuple[JudgedPart, ...]
    folder: RunFolder

    @property
    def verdict(self) -> Verdict:
        """Holds if all parts hold, does not hold if one of them does not, and is undecided otherwise."""
        found = {part.verdict for part in self.parts}
        return next(verdict for verdict in FIRST_VERDICTS if verdict in found)

    @property
    def missing(self) -> list[str]:
        """Names of the results that are not there."""
        return list(dict.fromkeys(name for part in self.parts for name in part.missing))

    @property
    def to_run(self) -> list[str]:
        """Names of the tables and figures that make the missing results."""
        missing, schedule = set(self.missing), self.folder.schedule.name
        sources = {
            name: {source.name for source in sources_of(DECLARATIONS[name], schedule)} for name in self.claim.names
        }
        return [name for name in self.claim.names if sources[name] & missing]

    @property
    def why(self) -> str:
        """Why it does not hold or is undecided; nothing if it holds."""
        reasons: dict[str, list[str]] = {}
        for part in self.parts:
            if part.verdict == self.verdict and part.why and not part.missing:
                reasons.setdefault(part.why, []).append(part.name)
        several = len(self.parts) > 1
        found = [f"{why} ({_few(names, '; ')})" if several else why for why, names in reasons.items()]
        if self.verdict == "undecided" and self.missing:
            found.append(f"not run: {_few(self.missing)}")
        return "; ".join(found)

    def to_json(self) -> dict[str, Any]:
        """The claim as JSON values; an end of the region that is infinite is null."""
        parts = [
            {**vars(part), "estimate": None if part.estimate is None else vars(part.estimate)} for part in self.parts
        ]
        return {
            **{name: getattr(self.claim, name) for name in ("name", "sentence", "where", "difference")},
            "region": [bound if math.isfinite(bound) else None for bound in self.claim.region],
            "verdict": self.verdict,
            "why": self.why,
            "missing": self.missing,
            "command": run_command(self.to_run, self.folder),
            "parts": parts,
        }


def judge_claims(folder: RunFolder, names: Iterable[str] = ()) -> list[JudgedClaim]:
    """Judge the claims whose tables and figures are all among `names`; all claims if there are no names.

    Raises:
        DataError: a result is damaged.
    """
    chosen = set(names) or set(DECLARATIONS)
    claims = [claim for claim in CLAIMS if chosen.issuperset(claim.names)]
    needed = {source.name for claim in claims for part in claim.parts for source in part.sources}
    results = {name: folder.load_result(name) for name in needed}
    return [
        JudgedClaim(claim, tuple(_judge_part(part, claim.region, folder, results) for part in claim.parts), folder)
        for claim in claims
    ]


def run_command(names: Iterable[str], folder: RunFolder) -> str:
    """The command that makes the results of tables and figures; nothing for no names."""
    named = list(names)
    options = ["--schedule", folder.schedule.name, "--out", str(folder.path)]
    return shlex.join(["smoothed", "paper", "run", *named, *options]) if named else ""


def judge(estimate: ClaimEstimate, region: Region) -> tuple[Verdict, str]:
    """The verdict on a part by the rule of this module, and why it does not hold or is undecided."""
    (low, high), (start, end) = estimate.interval, region
    if start < low and high < end:
        return "holds", ""
    if high < start:
        return "does not hold", f"the interval lies below {_bound(start)}"
    if low > end:
        return "does not hold", f"the interval lies above {_bound(end)}"
    included = [_bound(bound) for bound in region if low <= bound <= high]
    return "undecided", f"the interval includes {' and '.join(included)}"


def region_text(region: Region) -> str:
    """A region in words, such as `above 0`."""
    start, end = map(_bound, region)
    if math.isinf(region[1]):
        return f"above {start}"
    return f"below {end}" if math.isinf(region[0]) else f"between {start} and {end}"


def _judge_part(part: ClaimPart, region: Region, folder: RunFolder, results: dict[str, Result | None]) -> JudgedPart:
    names = tuple(dict.fromkeys(source.name for source in part.sources))
    found = [result for source in part.sources if (result := results[source.name]) is not None]
    judged = JudgedPart(part.name, names, "undecided")
    if len(found) < len(part.sources):
        missing = tuple(name for name in names if results[name] is None)
        return replace(judged, why=f"not run: {', '.join(missing)}", missing=missing)
    try:
        estimate = part.measure(folder, found)
    except NoEstimateError as reason:
        return replace(judged, why=str(reason))
    verdict, why = judge(estimate, region)
    return replace(judged, verdict=verdict, estimate=estimate, why=why)


def _few(names: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return separator.join(names[:3]) + more


def _bound(bound: float) -> str:
    return f"{bound:+g}" if bound else "0"
