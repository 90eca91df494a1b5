"""The service as a process: signals, kills, slow heads of requests, and where it may listen."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest

from serve.conftest import parse_events
from serve.serving import free_port, served_in
from smoothed.errors import ArgumentError
from smoothed.serve.run import check_address, listening

LONG = {"image": {"id": 0}, "num_samples": 400, "stop": None}
"""A vote of fifty passes, which take a second."""


def await_in_flight(served, votes, streams):
    """Wait until so many votes and streams are in the engine."""
    expected = [f"smoothed_unfinished_votes {votes}", f"smoothed_unfinished_streams {streams}"]
    for _ in range(500):
        if set(expected) <= set(served.get("/metrics")[1].splitlines()):
            return
        time.sleep(0.01)
    raise AssertionError(f"never {expected}")


@pytest.mark.slow
def test_sigterm_finishes_what_was_taken(tmp_path):
    with served_in(tmp_path) as served, ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(served.post, "/v1/predict", **LONG) for _ in range(3)]
        stream = threads.submit(served.post, "/v1/explore/vote", image={"id": 1}, seed=1, num_samples=200)
        await_in_flight(served, votes=3, streams=1)
        served.signal(signal.SIGTERM)
        for answer in answers:
            status, text = answer.result()
            assert status == 200
            assert json.loads(text)["draws"] == 400
        assert parse_events(stream.result()[1])[-1][0] == "end"
        ended = served.started.end()
        with pytest.raises(ConnectionRefusedError):
            served.get("/v1/health")
    assert ended.returncode == 0
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert sum(line["path"] == "/v1/predict" and line["status"] == 200 for line in lines) == 3
    assert len(ended.stderr.splitlines()) == 1  # where it listened


@pytest.mark.slow
def test_what_takes_longer_than_the_grace_period_gets_an_error(tmp_path):
    # Each draw is a pass of its own, so that both take seconds.
    with served_in(tmp_path, "--grace", "0.2", "--chunk-size", "1") as served, ThreadPoolExecutor(2) as threads:
        stream = threads.submit(served.post, "/v1/explore/vote", image={"id": 1}, seed=1, num_samples=200)
        await_in_flight(served, votes=0, streams=1)
        answer = threads.submit(served.post, "/v1/predict", **LONG, seed=1)
        await_in_flight(served, votes=1, streams=1)
        served.signal(signal.SIGTERM)
        status, text = answer.result()
        assert (status, json.loads(text)["error"]) == (503, "stopping")
        events = parse_events(stream.result()[1])
        assert events[-1] == (
            "error",
            {"error": "stopping", "detail": "the service is stopping and takes no more requests"},
        )
        assert sum(name == "draw" for name, _ in events) < 200
        assert served.started.end().returncode == 0


@pytest.mark.slow
def test_kill_and_restart(tmp_path):
    clients, stop, ended = 6, threading.Event(), []
    port = free_port()

    def load(served, failures):
        while not stop.is_set():
            try:
                status, _ = served.post("/v1/predict", image={"id": 1}, num_samples=64, stop=None)
                ended.append(status)
            except (OSError, HTTPException) as error:  # the second: in the middle of an answer
                failures.append(error)
                return

    with served_in(tmp_path, port=port) as served:
        failures = []
        threads = [threading.Thread(target=load, args=(served, failures)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        while len(ended) < 2 * clients:
            time.sleep(0.01)
        assert served.started.kill().returncode == -signal.SIGKILL
        for thread in threads:
            thread.join()
        assert len(failures) == clients  # each had one request in flight
        assert set(ended) == {200}
    with served_in(tmp_path, port=port) as served, ThreadPoolExecutor(clients) as threads:
        fields = {"image": {"id": 1}, "num_samples": 64, "stop": None}
        answers = [threads.submit(served.post, "/v1/predict", **fields) for _ in range(2 * clients)]
        assert {answer.result()[0] for answer in answers} == {200}


def await_end(connection, sent=b""):
    """Wait until the service ends a connection without an answer, although bytes of a head still arrive."""
    connection.settimeout(0.05)
    for _ in range(1000):
        try:
            connection.sendall(sent)
            assert connection.recv(4096) == b""
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):  # it had ended before these bytes
            return
        return
    raise AssertionError("the connection was never ended")


@pytest.mark.slow
def test_slow_heads_of_requests_are_cut_off(tmp_path):
    with served_in(tmp_path, "--body-timeout", "0.5") as served:
        silent, slow = (socket.create_connection(("127.0.0.1", served.port)) for _ in range(2))
        reused = socket.create_connection(("127.0.0.1", served.port))
        with silent, slow, reused:
            reused.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += reused.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200")
            reused.sendall(b"GET /v1/hea")
            assert served.post("/v1/predict", image={"id": 0}, num_samples=8)[0] == 200
            await_end(slow, sent=b"G")
            await_end(silent)
            await_end(reused)
        served.signal(signal.SIGINT)
        assert served.started.end().returncode == 0


def test_a_port_that_is_taken():
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        message = f"port: expected a free port that may be used, got {port}"
        with pytest.raises(ArgumentError, match=message), listening("127.0.0.1", port):
            pass


def test_an_unknown_host():
    message = r"host: expected a name or address of this computer, got 192\.0\.2\.1"
    with pytest.raises(ArgumentError, match=message), listening("192.0.2.1", 0):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_token(host):
    check_address(host, 8000, None)


@pytest.mark.parametrize("host", ["::", "10.0.0.1", "example.org"])
def test_other_hosts_need_a_token(host):
    with pytest.raises(ArgumentError, match=f"token: expected a token for the host {host}, which others can reach"):
        check_address(host, 8000, None)
    check_address(host, 8000, "a" * 16)


@pytest.mark.parametrize("token", ["", "short", "a" * 15, "é" * 20, "a\n" * 10])
def test_tokens_that_are_short_or_no_ascii(token):
    with pytest.raises(ArgumentError, match="token: expected at least 16 printable ASCII characters"):
        check_address("127.0.0.1", 8000, token)


@pytest.mark.parametrize("port", [-1, 65536, True, 80.5])
def test_ports(port):
    with pytest.raises(ArgumentError, match=r"port: expected an integer in 0\.\.65535"):
        check_address("127.0.0.1", port, None)
