"""What the service of `smoothed serve` does under load: requests that share passes beside the same one at a time.

    python benchmarks/serving.py --json serving.json          # --quick: about a minute

The service runs in a process of its own, and clients are threads of this one, each with a connection that it keeps.
They send PNG files of test images for a vote of M = 64 with the exact rule, on the bundled ResNet-20 with CNI, and on
the same network without noise inside, where one image fills passes by itself. Latency under a deadline is measured at
half of the top load, with requests that are sent at fixed times, whether or not those before are answered.
"""

import argparse
import base64
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from report import Row, at_least, at_most, show
from smoothed import Fast, Smoothed, load
from smoothed.checkpoint import locate, read_header
from smoothed.data.sample import load_sample
from smoothed.injection import injected_noise
from smoothed.serve.exploring import png
from smoothed.smoothing.config import NoiseConfig

MODEL, CLIENTS, NUM_SAMPLES = "resnet20-cni-w", 16, 64
VOTE = {"num_samples": NUM_SAMPLES, "stop": "exact"}
DEADLINE_MS, LONGEST_MS = 200, 300
_BOUNDARY = "serving-benchmark"


def without_noise_inside() -> nn.Module:
    """The bundled network without its own noise, for the service in its other process."""
    network = load(MODEL)
    injected_noise(network).undo()
    return network


@dataclass(frozen=True)
class Answer:
    """The answer to a request.

    Attributes:
        status: HTTP status; 0 if there was none.
        body: the JSON object.
        seconds: time from when the request was due to its answer.
    """

    status: int
    body: dict[str, Any]
    seconds: float


class Client:
    """A connection to the service, which is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def vote(self, file: bytes, due: float | None = None, **fields: object) -> Answer:
        """Send an image file for a vote; `due` is the time from which its latency counts."""
        begun = time.perf_counter() if due is None else due
        headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        try:
            self._connection.request("POST", "/v1/predict", _form(file, fields), headers)
            answer = self._connection.getresponse()
            status, body = answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._connection.close()  # the next request opens it anew
            status, body = 0, {}
        return Answer(status, body, time.perf_counter() - begun)


def _form(file: bytes, fields: dict[str, object]) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image.png"\r\n\r\n'
    texts = "".join(
        f'\r\n--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'
        for name, value in fields.items()
    )
    return head.encode() + file + f"{texts}\r\n--{_BOUNDARY}--\r\n".encode()


@contextmanager
def service(model: str, precision: str, *options: str) -> Iterator[int]:
    """The port of a service that is ready; the service ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "smoothed",
        "serve",
        "--model",
        model,
        "--port",
        str(port),
        "--precision",
        precision,
    ]
    process = subprocess.Popen(  # noqa: S603 - this program's own command
        [*command, "--quiet", *options], stdout=subprocess.DEVNULL, cwd=Path(__file__).parent, env=dict(os.environ)
    )
    try:
        _await_ready(port, process)
        yield port
    finally:
        process.terminate()
        process.wait()


def _await_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/v1/ready")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit(f"the service ended with code {process.returncode}")


def closed_load(port: int, files: Sequence[bytes], clients: int) -> tuple[list[Answer], float]:
    """All answers and the seconds of all requests, from clients each of which sends one after the other."""
    waiting, lock, answers = list(files), threading.Lock(), list[Answer]()

    def work() -> None:
        client = Client(port)
        while True:
            with lock:
                if not waiting:
                    return
                file = waiting.pop()
            answer = client.vote(file, **VOTE)
            with lock:
                answers.append(answer)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.perf_counter() - begun


def open_load(port: int, files: Sequence[bytes], rate: float) -> list[Answer]:
    """All answers to requests with a deadline that are sent at a rate, each at its time."""
    local = threading.local()

    def send(file: bytes, due: float) -> Answer:
        if not hasattr(local, "client"):
            local.client = Client(port)
        return local.client.vote(file, due, **VOTE, deadline_ms=DEADLINE_MS)

    with ThreadPoolExecutor(4 * CLIENTS) as threads:
        begun, sent = time.perf_counter() + 0.1, []
        for number, file in enumerate(files):
            due = begun + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            sent.append(threads.submit(send, file, due))
        return [each.result() for each in sent]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, -(-int(share * len(values) * 1000) // 1000) - 1)]


class Bench:
    """Images and how often things are measured."""

    def __init__(self, *, quick: bool, precision: str) -> None:
        self.precision = precision
        self.requests, self.alone, self.rounds = (96, 24, 1) if quick else (500, 60, 3)
        ((images, _),) = load_sample().first(500).batches(500)
        self.images = images
        self.files = [base64.b64decode(png(image)) for image in images]

    def under_load(self, name: str, model: str, goal: float, *options: str) -> list[Row]:
        """Requests from many clients beside one at a time, and latency under a deadline at half of the top load."""
        with service(model, self.precision, *options) as port:
            closed_load(port, self.files[: 4 * CLIENTS], CLIENTS)  # not measured
            shared, alone, answers = list[float](), list[float](), list[Answer]()
            for _ in range(self.rounds):
                made, seconds = closed_load(port, self._files(self.requests), CLIENTS)
                shared.append(self.requests / seconds)
                answers += made
                _, seconds = closed_load(port, self._files(self.alone), 1)
                alone.append(self.alone / seconds)
            rate = statistics.median(shared)
            timely = open_load(port, self._files(self.requests), rate / 2)
        lost = sum(answer.status != http.HTTPStatus.OK for answer in answers)
        latencies = [1000 * answer.seconds for answer in answers]
        ended = sum(answer.body.get("ended") == "deadline" for answer in timely)
        refused = sum(answer.status != http.HTTPStatus.OK for answer in timely)
        late = percentile([1000 * answer.seconds for answer in timely], 0.99)
        return [
            at_most(f"{name}: requests of {self.requests} from {CLIENTS} clients that are lost", lost / self.rounds, 0),
            Row(f"{name}: draws of a request", statistics.fmean(a.body.get("draws", 0) for a in answers)),
            Row(f"{name}: requests/s, {CLIENTS} clients", rate),
            Row(f"{name}: requests/s, one at a time", statistics.median(alone)),
            at_least(
                f"{name}: requests/s, times those of one at a time",
                statistics.median(many / one for many, one in zip(shared, alone, strict=True)),
                goal,
            ),
            Row(f"{name}: median latency with {CLIENTS} clients, ms", percentile(latencies, 0.5)),
            at_most(f"{name}: p99 with deadline_ms={DEADLINE_MS} at half of the top load, ms", late, LONGEST_MS),
            Row(f"{name}: requests that the deadline ended, %", 100 * ended / len(timely)),
            at_most(f"{name}: requests at half of the top load that are refused", refused, 0),
        ]

    def seeded_answers(self) -> list[Row]:
        """Answers to requests with a seed, among others without, beside `Smoothed.predict` with the same seeds."""
        count = 32 if self.requests < 500 else 200
        plain = load(MODEL)
        noise = NoiseConfig.from_header(read_header(locate(MODEL))).for_model(plain)
        network = Fast(plain, self.precision)
        with service(MODEL, self.precision) as port, ThreadPoolExecutor(CLIENTS) as threads:
            others = [threads.submit(Client(port).vote, file, **VOTE) for file in self.files[:CLIENTS]]
            seeded = [
                threads.submit(Client(port).vote, file, **VOTE, seed=seed)
                for seed, file in enumerate(self.files[:count])
            ]
            answers = [each.result() for each in seeded]
            for each in others:
                each.result()
        wrong = 0
        for seed, answer in enumerate(answers):
            smoothed = Smoothed(network, noise, num_samples=NUM_SAMPLES, seed=seed)
            wrong += answer.body.get("class") != smoothed.predict(self.images[seed : seed + 1]).item()
        return [at_most(f"seeded requests of {count} whose class is not that of Smoothed.predict", wrong, 0)]

    def _files(self, count: int) -> list[bytes]:
        return [self.files[number % len(self.files)] for number in range(count)]


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--precision", default="auto", help="number format of the votes: float32, bf16 or auto")
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    options = parser.parse_args()
    bench = Bench(quick=options.quick, precision=options.precision)
    sigma = NoiseConfig.from_header(read_header(locate(MODEL))).to_json(load(MODEL))["sigma"]
    rows = bench.seeded_answers()
    rows += bench.under_load("CNI", MODEL, 3.0)
    rows += bench.under_load("input noise alone", "serving:without_noise_inside", 1.2, "--sigma", f"{sigma:.6g}")
    show(rows, options.json)


if __name__ == "__main__":
    main()
