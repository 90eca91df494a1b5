"""The engine: one thread that owns the network and does the work of all requests in turns.

Votes of requests that wait together share passes (continuous batching over draws): a vote joins the next pass, and
leaves when it is decided, when its deadline has passed, or when its client has gone.
"""

import logging
import math
import threading
import time
from collections import deque

import torch

from smoothed.serve.counting import Count
from smoothed.serve.events import EventStream
from smoothed.serve.metrics import ServiceMetrics
from smoothed.serve.refusals import overloaded, stopping
from smoothed.serve.secret import SecretSeed, SecretSeeds
from smoothed.serve.served import ServedModel
from smoothed.serve.settings import ServeSettings
from smoothed.serve.turns import PassSize, SharedPasses, SoloVote, Turn, VoteJob
from smoothed.smoothing.votes import VOTES
from smoothed.utils.modes import eval_mode

_log = logging.getLogger("smoothed.serve")

# Numbers of images of the first passes, before the service is ready: `Fast` measures once for each of the first four.
_WARM_UP = (1, 2, 3, 4, 8)
_WARM_UP_DRAWS = 2


class Engine:
    """Does the work of all requests.

    Args:
        served: the model; from `start` on only the engine's thread calls it.
        settings: limits.
        metrics: receives numbers of passes and draws.
    """

    def __init__(self, served: ServedModel, settings: ServeSettings, metrics: ServiceMetrics) -> None:
        self.served = served
        self.settings = settings
        self._metrics = metrics
        self._seeds = SecretSeeds(settings.seed_seconds)
        self._size = PassSize()
        self._changed = threading.Condition()
        self._arrived: deque[tuple[VoteJob, int | None] | EventStream] = deque()
        self._turns: deque[Turn] = deque()
        self._shared: dict[tuple[float | None, SecretSeed], SharedPasses] = {}
        self._votes = 0
        self._streams = 0
        self._recent_seconds = 0.1
        self._ready = threading.Event()
        self._draining = False
        self._stop_at = math.inf
        self._thread = threading.Thread(target=self._run, name="smoothed-engine", daemon=True)

    def start(self) -> None:
        """Start the thread, which first runs warm-up passes."""
        self._thread.start()

    @property
    def state(self) -> str:
        """`loading` during the warm-up passes, `ready` afterwards, `draining` once `drain` has been called."""
        if self._draining:
            return "draining"
        return "ready" if self._ready.is_set() else "loading"

    @property
    def unfinished(self) -> tuple[int, int]:
        """Numbers of votes and of streams that are waiting or running."""
        return self._votes, self._streams

    def submit(self, job: VoteJob, seed: int | None = None) -> None:
        """Take a vote; it runs alone if it has a seed.

        Raises:
            Refusal: the queue is full, or the engine is stopping.
        """
        with self._changed:
            self._require_room("queue", self._votes, self.settings.queue)
            self._votes += 1
            self._arrived.append((job, seed))
            self._changed.notify()
        begun = time.monotonic()

        def ended(_: object) -> None:
            with self._changed:
                self._votes -= 1
                self._recent_seconds += 0.1 * (time.monotonic() - begun - self._recent_seconds)
                self._changed.notify()

        job.future.add_done_callback(ended)

    def open(self, stream: EventStream) -> None:
        """Take a stream of events.

        Raises:
            Refusal: there are too many, or the engine is stopping.
        """
        with self._changed:
            self._require_room("streams", self._streams, self.settings.streams)
            self._streams += 1
            stream.wake = self.wake
            self._arrived.append(stream)
            self._changed.notify()

        def ended(_: object) -> None:
            with self._changed:
                self._streams -= 1
                self._changed.notify()

        stream.ended.add_done_callback(ended)

    def require_room(self) -> None:
        """Raise `Refusal` if a vote would not be taken now."""
        with self._changed:
            self._require_room("queue", self._votes, self.settings.queue)

    def wake(self) -> None:
        """Make the thread check again which turns are ready."""
        with self._changed:
            self._changed.notify()

    def drain(self, seconds: float) -> None:
        """Refuse new requests.

        Accepted requests may finish within `seconds`; those that are still unfinished then receive an error.
        """
        with self._changed:
            self._draining = True
            self._stop_at = min(self._stop_at, time.monotonic() + seconds)
            self._changed.notify()

    def close(self, seconds: float = 0.0) -> None:
        """Drain, and wait until the thread has ended."""
        self.drain(seconds)
        if self._thread.is_alive():
            self._thread.join()

    def _require_room(self, what: str, present: int, limit: int) -> None:
        if self._draining:
            raise stopping()
        if present >= limit:
            raise overloaded(what, limit, max(1, math.ceil(self._recent_seconds)))

    def _run(self) -> None:
        try:
            with torch.no_grad(), eval_mode(self.served.voter), eval_mode(self.served.network):
                self._prepare()
                self._ready.set()
                while self._wait():
                    self._seat_arrivals()
                    self._turn()
        finally:  # whatever ended the work, nobody waits for it any longer
            self._refuse_all()

    def _prepare(self) -> None:
        try:
            self._warm_up()
        except Exception:  # the first request meets the same error and reports it
            _log.exception("the first passes failed")

    def _refuse_all(self) -> None:
        with self._changed:
            self._draining = True
            left: list[tuple[VoteJob, int | None] | EventStream] = list(self._arrived)
            self._arrived.clear()
        error = stopping()
        for arrival in left:
            (arrival if isinstance(arrival, EventStream) else arrival[0]).fail(error)
        for turn in self._turns:
            turn.fail(error)

    def _wait(self) -> bool:
        """Wait for work; whether there may be more."""
        with self._changed:
            while True:
                if time.monotonic() >= self._stop_at or (self._draining and not (self._arrived or self._turns)):
                    return False
                if self._arrived or any(turn.ready for turn in self._turns):
                    return True
                # A stream whose client does not read becomes ready by time, too.
                limit = self._stop_at - time.monotonic() if self._draining else math.inf
                self._changed.wait(min(limit, 1.0) if self._turns else None if limit == math.inf else limit)

    def _seat_arrivals(self) -> None:
        with self._changed:
            arrivals = [self._arrived.popleft() for _ in range(len(self._arrived))]
        for arrival in arrivals:
            if isinstance(arrival, EventStream):
                self._turns.append(arrival)
                continue
            job, seed = arrival
            try:
                job.image = job.image.to(self.served.device)
                self._seat(job, seed)
            except Exception as error:  # any error of one request must not end the thread
                _log.exception("a request failed")
                job.fail(error)

    def _seat(self, job: VoteJob, seed: int | None) -> None:
        if seed is not None:
            self._turns.append(SoloVote(self.served.smoothed(job.sigma, seed=seed), job, self._metrics.count_pass))
            return
        secret = self._seeds.current()
        key = job.sigma, secret
        if key not in self._shared:
            smoothed = self.served.smoothed(job.sigma)
            self._shared[key] = SharedPasses(smoothed, secret, job.image, self._size, self._metrics.count_pass)
            self._turns.append(self._shared[key])
        self._shared[key].join(job)

    def _turn(self) -> None:
        """One step of the first turn that is ready."""
        for _ in range(len(self._turns)):
            turn = self._turns.popleft()
            if turn.ready:
                break
            self._turns.append(turn)
        else:
            return
        try:
            more = turn.step()
        except Exception as error:  # an error of one turn must not end the others
            _log.exception("a request failed")
            turn.fail(error)
            more = False
        if more:
            self._turns.append(turn)
        else:
            self._shared = {key: passes for key, passes in self._shared.items() if passes is not turn}

    def _warm_up(self) -> None:
        """Make passes of several sizes, so that the first requests do not wait for measurements of `Fast`."""
        image = torch.full(self.served.shape, 0.5, device=self.served.device)
        secret = SecretSeed()
        for images in _WARM_UP:
            passes = SharedPasses(self.served.smoothed(None), secret, image, PassSize(), lambda *_: None)
            for _ in range(images):
                passes.join(VoteJob(image, Count(VOTES["prediction"], _WARM_UP_DRAWS)))
            while passes.step():
                pass
