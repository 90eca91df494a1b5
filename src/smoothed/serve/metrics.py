"""Numbers of the running service, in the text format of Prometheus."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class _Histogram:
    """Counts of values up to each of several bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str = "") -> Iterator[str]:
        so_far, comma = 0, "," if labels else ""
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            yield f'{name}_bucket{{{labels}{comma}le="{bound}"}} {so_far}'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self.total:.6f}"
        yield f"{name}_count{braces} {so_far}"


class ServiceMetrics:
    """Counts requests, passes and draws; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, _Histogram] = {}
        self._ended: Counter[str] = Counter()
        self._images = _Histogram(_IMAGES)
        self._draws = 0

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            route: path of the route, without the values in it.
            status: HTTP status; 499 if the client has gone before the answer.
            seconds: time from the request to the end of the answer.
        """
        with self._lock:
            self._requests[route, status] += 1
            self._seconds.setdefault(route, _Histogram(_SECONDS)).add(seconds)

    def count_ended(self, ended: str) -> None:
        """Count a vote by why its draws ended."""
        with self._lock:
            self._ended[ended] += 1

    def count_pass(self, images: int, draws: int) -> None:
        """Count a pass over so many images, with so many draws over all of them."""
        with self._lock:
            self._images.add(images)
            self._draws += draws

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All numbers.

        Args:
            gauges: present values by name, each with its description.
        """
        with self._lock:
            lines = [
                *_head("smoothed_requests_total", "counter", "Requests by route and status."),
                *(
                    f'smoothed_requests_total{{route="{route}",status="{status}"}} {count}'
                    for (route, status), count in sorted(self._requests.items())
                ),
                *_head("smoothed_request_seconds", "histogram", "Time from a request to the end of its answer."),
            ]
            for route, histogram in sorted(self._seconds.items()):
                lines += histogram.lines("smoothed_request_seconds", f'route="{route}"')
            lines += _head("smoothed_votes_total", "counter", "Votes by why their draws ended.")
            lines += [f'smoothed_votes_total{{ended="{name}"}} {count}' for name, count in sorted(self._ended.items())]
            lines += _head("smoothed_draws_total", "counter", "Draws of votes.")
            lines.append(f"smoothed_draws_total {self._draws}")
            lines += _head("smoothed_pass_images", "histogram", "Images that share a pass.")
            lines += self._images.lines("smoothed_pass_images")
        for name, (description, value) in gauges.items():
            lines += [*_head(name, "gauge", description), f"{name} {value:g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, description: str) -> tuple[str, str]:
    return f"# HELP {name} {description}", f"# TYPE {name} {kind}"
