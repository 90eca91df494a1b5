"""Routes, their errors, the token, the log and the metrics."""

import base64
import json
import math
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from serve.conftest import parse_events
from serve.test_images import FILES, PIXELS
from smoothed import Gaussian, Smoothed
from smoothed.errors import ArgumentError
from smoothed.serve.settings import ServeSettings

SIGMA = 0.5
ARRAY = [[[0.5] * 8] * 8] * 3


def smoothed_with(network, seed, **options):
    return Smoothed(network, Gaussian(options.pop("sigma", SIGMA)), seed=seed, num_samples=24, **options)


def test_model_and_images(running, labels):
    client = running.client
    told = client.get("/v1/model").json()
    assert told["classes"] == ["0", "1", "2", "3"]
    assert told["input_shape"] == [3, 8, 8]
    assert (told["sigma"], told["vote"], told["num_samples"], told["injection"]) == (SIGMA, "prediction", 24, None)
    assert told["votes"] == ["prediction", "weighted", "soft"]
    assert told["attacks"] == ["pgd", "epgd"]
    assert told["limits"] == {
        "num_samples": 512,
        "steps": 100,
        "eot_samples": 32,
        "pixels": 2**24,
        "body_bytes": 2**23,
    }
    listed = client.get("/v1/images").json()["images"]
    assert [(each["id"], each["label"]) for each in listed] == list(enumerate(labels.tolist()))
    answer = client.get("/v1/images/3.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG")
    for path in ("/v1/images/16.png", "/v1/images/-1.png", "/v1/images/x.png"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("seed", [0, -5, 2**63 - 1])
def test_predict_with_a_seed_is_that_of_smoothed(running, network, images, seed):
    answer = running.vote({"id": 2}, seed=seed, num_samples=24, stop="exact").json()
    tally = smoothed_with(network, seed).tally(images[2:3], votes=["prediction"], stop="exact")["prediction"][24]
    assert answer["class"] == smoothed_with(network, seed).predict(images[2:3]).item()
    assert answer["draws"] == int(tally.num_samples)
    assert answer["ended"] == ("exact" if answer["draws"] < 24 else "num_samples")
    shares = {each["class"]: each["share"] for each in answer["shares"]}
    assert [shares[number] for number in range(4)] == pytest.approx(tally.shares[0].tolist(), abs=1e-6)
    ordered = [each["share"] for each in answer["shares"]]
    assert ordered == sorted(ordered, reverse=True)
    assert answer["margin"] == pytest.approx(ordered[0] - ordered[1], abs=1e-6)
    assert all(each["low"] <= each["share"] <= each["high"] for each in answer["shares"])
    assert set(answer) == {
        *("class", "class_name", "shares", "draws", "ended", "margin", "seconds", "model", "version")
    }


def test_files_forms_and_json_give_the_same_answer(running, sharp_image, png):
    data, fields = png(sharp_image), {"seed": 3, "num_samples": 12, "vote": "soft", "sigma": 0.25}
    by_file = running.client.post("/v1/predict", files={"image": ("a.png", data)}, data={**fields, "stop": "null"})
    by_text = running.vote({"png": base64.b64encode(data).decode()}, **fields, stop=None)
    by_array = running.vote(sharp_image.tolist(), **fields, stop=None)
    answers = [answer.json() for answer in (by_file, by_text, by_array)]
    for answer in answers:
        del answer["seconds"]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["draws"] == 12


def test_what_is_left_out_is_taken_from_the_model(running):
    answer = running.vote(stop=None).json()
    assert (answer["draws"], answer["ended"]) == (24, "num_samples")
    assert running.vote().json()["ended"] in {"exact", "num_samples"}
    tiny_deadline = running.vote(stop=None, num_samples=512, deadline_ms=0.001).json()
    assert tiny_deadline["ended"] == "deadline"
    assert 1 <= tiny_deadline["draws"] < 512


WRONG = {
    "no image": ({}, 422, "image: expected an array .* got nothing"),
    "num_samples text": ({"num_samples": "64"}, 422, "num_samples: expected the number of draws M, .* got '64'"),
    "num_samples zero": ({"num_samples": 0}, 422, "num_samples: .* an integer of at least 1, got 0"),
    "num_samples flag": ({"num_samples": True}, 422, "num_samples: .* got True"),
    "num_samples fraction": ({"num_samples": 1.5}, 422, "num_samples: .* got 1.5"),
    "num_samples large": ({"num_samples": 513}, 422, "num_samples: expected at most 512, the limit of this service"),
    "vote": ({"vote": "majority"}, 422, "vote: expected one of prediction, weighted, soft, got 'majority'"),
    "vote number": ({"vote": 3}, 422, "vote: expected the name of a vote, .* got 3"),
    "sigma": ({"sigma": -0.1}, 422, "sigma: expected the deviation .* got -0.1"),
    "sigma in 255ths": ({"sigma": 15}, 422, r"sigma: .* a number in \[0, 1\], got 15"),
    "sigma nan": ({"sigma": math.nan}, 422, "sigma: .* got nan"),
    "stop": ({"stop": "early"}, 422, "stop: expected the rule .* got 'early'"),
    "error": ({"stop": "confident", "error": 1}, 422, r"error: .* a number in \(0, 1\), got 1"),
    "deadline": ({"deadline_ms": 0}, 422, "deadline_ms: expected a number of milliseconds above 0, got 0"),
    "long deadline": ({"deadline_ms": 1e6}, 422, "deadline_ms: expected at most 60000"),
    "infinite deadline": ({"deadline_ms": math.inf}, 422, "deadline_ms: .* got inf"),
    "seed": ({"seed": "x"}, 422, "seed: expected an integer of at most 64 bits, got 'x'"),
    "seed of 65 bits": ({"seed": 2**64}, 422, "seed: .* got 18446744073709551616"),
    "unknown field": ({"num_sample": 3}, 422, "body: expected the fields image, .* did you mean num_samples?"),
    "image": ({"image": [[1, 2]]}, 422, r"image: expected numbers in \[0, 1\] as an array of shape \[3, 8, 8\]"),
}


def post_json(client, text, path="/v1/predict"):
    return client.post(path, content=text, headers={"content-type": "application/json"})


def assert_problem(answer, status, message):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert set(told) == {"error", "detail"}
    assert re.search(message, told["detail"]), told["detail"]
    assert "\n" not in told["detail"]


def test_wrong_fields_are_named(running):
    for name, (fields, status, message) in WRONG.items():
        body = {} if name == "no image" else {"image": {"id": 0}, **fields}
        assert_problem(post_json(running.client, json.dumps(body)), status, message)
    assert running.vote().status_code == 200


BODIES = {
    "nothing": (b"", 400, "body: expected JSON, got nothing"),
    "no json": (b"{", 400, "body: expected JSON, got something else"),
    "no text": (b"\xff\xfe\x00", 400, "body: expected JSON"),
    "deep": (b"[" * 200_000, 400, "body: expected JSON, got something else .lists within lists too deep"),
    "a list": (b"[1]", 422, "body: expected a JSON object, got a list"),
    "null": (b"null", 422, "body: expected a JSON object, got a null"),
}


def test_bodies_that_are_no_objects(running):
    for body, status, message in BODIES.values():
        assert_problem(post_json(running.client, body), status, message)


def test_forms(running, sharp_image, png):
    def post(**options):
        return running.client.post("/v1/predict", **options)

    file = {"image": ("a.png", png(sharp_image))}
    assert_problem(post(files=file, data={"num_samples": "many"}), 422, "num_samples: .* got 'many'")
    assert_problem(post(files={"picture": file["image"]}), 422, "did you mean|body: expected the fields")
    assert_problem(post(files={"image": ("a.png", b"text")}), 415, "image: expected an image file")
    assert_problem(post(files={"image": ("a.png", b"")}), 415, "got an empty file")
    assert_problem(post(files=[("image", file["image"]), ("image", file["image"])]), 400, "multipart/form-data")
    assert_problem(post(files=file, data={"seed": ["1", "2"]}), 422, "seed: expected one value, got several")
    assert_problem(post(data={"image": "1"}), 415, "Content-Type: expected application/json or multipart/form-data")
    bad = {"content-type": "multipart/form-data"}
    assert_problem(post(content=b"x", headers=bad), 400, "body: expected multipart/form-data, got something else")
    assert_problem(post(content=b"x", headers={"content-type": "text/plain"}), 415, "got 'text/plain'")
    assert_problem(post(content=b"x"), 415, "got none")
    assert post(files=file, data={"seed": "", "stop": "exact"}).status_code == 200


def test_paths_and_methods(running):
    assert_problem(running.client.get("/v1/nothing"), 404, "path: expected one of those that /docs lists")
    assert_problem(running.client.get("/v1/predict"), 405, "method: expected another one for this path, got GET")


def test_large_bodies(served, run_service):
    made = run_service(served, ServeSettings(body_bytes=500))
    answer = made.vote(ARRAY)
    assert_problem(answer, 413, r"body: expected at most 500 bytes, got \d+")
    assert answer.headers["connection"] == "close"

    def pieces():  # without Content-Length
        for _ in range(50):
            yield b" " * 100

    assert_problem(post_json(made.client, pieces()), 413, "body: expected at most 500 bytes, got more")
    assert made.vote().status_code == 200


def test_large_images(served, run_service, png):
    made = run_service(served, ServeSettings(pixels=100))
    wide = torch.zeros(3, 8, 16)
    answer = made.client.post("/v1/predict", files={"image": ("a.png", png(wide))})
    assert_problem(answer, 413, "image: expected an image of at most 100 pixels, got 16 x 8")


def test_damaged_files_are_refused_and_the_service_goes_on(served, run_service):
    made = run_service(served, ServeSettings(pixels=PIXELS))
    for data, status, message in FILES.values():
        by_form = made.client.post("/v1/predict", files={"image": ("a.png", data)})
        assert_problem(by_form, status, f"^image: .*{re.escape(message)}")
        by_text = made.vote({"png": base64.b64encode(data).decode()})
        assert_problem(by_text, status, rf"^image\.png: .*{re.escape(message)}")
        assert made.vote().status_code == 200


def test_a_full_queue_over_http(network, serve_model, run_service):
    class Held(torch.nn.Module):
        """A network whose passes wait."""

        def __init__(self):
            super().__init__()
            self.network, self.open = network, threading.Event()
            self.open.set()

        def forward(self, inputs):
            self.open.wait()
            return self.network(inputs)

    held = Held()
    made = run_service(serve_model(held), ServeSettings(queue=2))
    made.vote()  # after the first passes
    held.open.clear()
    with ThreadPoolExecutor(2) as threads:
        try:
            first = [threads.submit(made.vote, num_samples=8) for _ in range(2)]
            while made.service.engine.unfinished[0] < 2:
                time.sleep(0.01)
            refused = made.vote()
        finally:
            held.open.set()
        assert [answer.result().status_code for answer in first] == [200, 200]
    assert_problem(refused, 503, "queue: expected fewer than 2 at the same time, got that many; try again in")
    assert refused.json()["error"] == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    assert made.vote().status_code == 200


def test_limits_of_an_attack(running):
    def post(**fields):
        return running.client.post("/v1/explore/attack", json={"image": {"id": 0}, "seed": 1, **fields})

    assert_problem(post(steps=101), 422, "steps: expected at most 100")
    assert_problem(post(eot_samples=33), 422, "eot_samples: expected at most 32")
    assert_problem(post(eps=8), 422, r"eps: expected the L-inf radius in pixel units, a number in \[0, 1\], got 8")
    assert_problem(post(attack="square"), 422, "attack: expected the name of the attack, pgd or epgd, got 'square'")
    assert_problem(post(vote="loud"), 422, "vote: expected one of prediction, weighted, soft, got 'loud'")
    assert_problem(post(num_samples=513), 422, "num_samples: expected at most 512, the limit of this service")
    assert_problem(post(num_samples=0), 422, "num_samples: expected the number of draws M, an integer of at least 1")
    assert_problem(post(label=4), 422, r"label: expected the number of a class, 0..3, got 4")
    assert_problem(post(seed=None), 422, "seed: expected an integer of at most 64 bits, got None")
    race = {"image": {"id": 0}}
    assert_problem(running.client.post("/v1/explore/vote", json=race), 422, "seed: expected an integer")
    too_many = {**race, "seed": 1, "pictures": 65}
    assert_problem(running.client.post("/v1/explore/vote", json=too_many), 422, r"pictures: .* 0\.\.64, got 65")


def test_a_noise_of_the_owner_has_no_other_sigma(network, images, labels, run_service):
    from smoothed.serve.served import ServedModel

    def dots(inputs, generator):
        return torch.rand(inputs.shape, generator=generator) - 0.5

    made = run_service(ServedModel.of(Smoothed(network, dots, num_samples=4), (images, labels)))
    assert made.vote().status_code == 200
    assert_problem(made.vote(sigma=0.2), 422, "sigma: expected none, because the noise is a function")
    assert made.client.get("/v1/model").json()["sigma"] is None


def test_token(served, run_service):
    word = "correct horse battery"
    made = run_service(served, token=word)
    client = made.client
    assert client.get("/v1/health").json() == {"status": "ok"}
    assert client.get("/v1/ready").status_code in {200, 503}
    basic = {name: base64.b64encode(f"anyone:{name}".encode()).decode() for name in ("correct horse battery", "wrong")}
    right = ("Bearer correct horse battery", "bearer correct horse battery", f"Basic {basic['correct horse battery']}")
    wrong = (
        *("", "Bearer", "Bearer wrong", "Bearer correct horse batter", "correct horse battery", "Bearer \xe9\xe9"),
        *(f"Basic {basic['wrong']}", "Basic !", "Digest correct horse battery"),
    )
    for path in ("/v1/model", "/metrics", "/", "/docs", "/openapi.json", "/static/explorer.js", "/nothing"):
        for header in wrong:
            headers = {"authorization": header.encode("latin-1")} if header else {}
            answer = client.get(path, headers=headers)
            assert_problem(answer, 401, "Authorization: expected the token of this service")
            assert answer.headers["www-authenticate"].startswith("Basic")
    for header in right:
        assert client.get("/v1/model", headers={"authorization": header}).status_code == 200
    assert "correct horse" not in "".join(made.lines)


def imported(client, path, **options):
    """A script of the page and all that it imports, by their paths."""
    found, left = {}, [path]
    while left:
        name = left.pop()
        answer = client.get(name, **options)
        assert answer.status_code == 200, name
        found[name] = answer.text
        left += {f"/static/{each}" for each in re.findall(r'from "\./([^"]+)"', answer.text)} - set(found)
    return found


def test_all_that_the_page_asks_for_with_the_token(served, run_service):
    """A browser sends the token that its reader enters with each request of the page."""
    word = "correct horse battery"
    made = run_service(served, token=word)
    auth, client = {"auth": ("anyone", word)}, made.client
    asked = client.get("/")
    assert asked.status_code == 401
    assert asked.headers["www-authenticate"] == 'Basic realm="smoothed", charset="UTF-8"'
    page = client.get("/", **auth)
    scripts = imported(client, "/static/explorer.js", **auth)
    assert {"/static/service.js", "/static/attack-view.js", "/static/draws.js"} <= set(scripts)
    answers = [page, *(client.get(path, **auth) for path in ("/static/explorer.css", "/v1/model", "/v1/images"))]
    answers.append(client.get("/v1/images/0.png", **auth))
    question = {"image": {"id": 0}, "seed": 1, "num_samples": 4}
    for path in ("/v1/explore/vote", "/v1/explore/attack"):
        assert client.post(path, json=question).status_code == 401
        answers.append(client.post(path, json=question, **auth))
        assert parse_events(answers[-1].text)[-1][0] == "end"
    assert {answer.status_code for answer in answers} == {200}
    assert client.get("/", params={"token": word}).status_code == 401
    told = "".join([*scripts.values(), *made.lines, *(answer.text for answer in answers)])
    assert word not in told
    assert base64.b64encode(f"anyone:{word}".encode()).decode() not in told


def test_health_and_readiness(served):
    from serve.conftest import Running

    made = Running(served)
    assert made.service.engine.state == "loading"
    with made.client as client:
        made.vote()  # after the first passes
        assert client.get("/v1/ready").json() == {"status": "ready"}
        made.service.engine.drain(5)
        answer = client.get("/v1/ready")
        assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
        assert client.get("/v1/health").status_code == 200
        refused = made.vote()
        assert_problem(refused, 503, "the service is stopping")
        assert refused.headers["retry-after"] == "5"


def test_page_and_its_files(running):
    client = running.client
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name in re.findall(r'(?:href|src)="static/([^"]+)"', page.text):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] in {"text/css", "text/javascript"}
        assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("nothing.js", "..%2fapp.py", "%2e%2e/app.py", "....js", "a.py", "x"):
        assert client.get(f"/static/{name}").status_code == 404


def test_openapi_and_its_page(running):
    schema = running.client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/explore/vote", "/v1/explore/attack", "/v1/model", "/metrics"} <= set(schema["paths"])
    post = schema["paths"]["/v1/predict"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    fields = post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(fields) == {"image", "vote", "num_samples", "sigma", "stop", "error", "deadline_ms", "seed"}
    page = running.client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for word in ("/v1/explore/attack", "num_samples", "deadline_ms", "margin", "Status 413"):
        assert word in page


def test_the_log_has_a_line_for_each_request(running):
    running.vote(seed=12345, vote="soft", num_samples=8, stop=None)
    running.vote(num_samples=8)
    running.client.get("/nothing")
    first, second, third = (line for line in running.logged if line["event"] == "request")
    assert first["path"] == "/v1/predict"
    assert (first["status"], first["seed"], first["draws"], first["ended"]) == (200, 12345, 8, "num_samples")
    assert "seed" not in second
    assert (third["status"], third["method"]) == (404, "GET")
    assert len({line["id"] for line in running.logged}) == 3
    assert all(line["seconds"] >= 0 for line in running.logged)


def test_secret_seeds_appear_nowhere(running):
    texts = [running.vote().text, running.client.get("/v1/model").text, running.client.get("/metrics").text]
    secret = str(running.service.engine._seeds.current().value)
    assert all(secret not in text for text in (*texts, *running.lines))


def test_metrics(running):
    for _ in range(3):
        running.vote(num_samples=8, stop=None)
    running.client.get("/nothing")
    running.client.get("/v1/images/3.png")
    answer = running.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['smoothed_requests_total{route="/v1/predict",status="200"}'] == "3"
    assert values['smoothed_requests_total{route="other",status="404"}'] == "1"
    assert values['smoothed_requests_total{route="/v1/images/{number}.png",status="200"}'] == "1"
    assert values['smoothed_request_seconds_count{route="/v1/predict"}'] == "3"
    assert values['smoothed_request_seconds_bucket{route="/v1/predict",le="+Inf"}'] == "3"
    assert values['smoothed_votes_total{ended="num_samples"}'] == "3"
    assert values["smoothed_draws_total"] == "24"
    assert values["smoothed_unfinished_votes"] == "0"
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {re.sub(r"(_bucket|_sum|_count)?(\{.*)?$", "", name) for name in values} <= named | {
        name.removesuffix("_total") for name in named
    }


def test_an_error_of_the_network_is_answered_and_logged_without_its_text(network, serve_model, run_service):
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.broken = network, False

        def forward(self, inputs):
            if self.broken:
                raise RuntimeError("text of the network's owner")
            return self.network(inputs)

    broken = Broken()
    made = run_service(serve_model(broken))
    made.vote()
    broken.broken = True
    assert_problem(made.vote(), 500, "the service failed on this request; its log says why")
    broken.broken = False
    assert made.vote().status_code == 200


def test_a_service_of_a_plain_network_says_what_is_missing(network, images, labels):
    from smoothed.errors import ArgumentError
    from smoothed.serve.served import ServedModel

    with pytest.raises(ArgumentError, match="classifier: expected a Smoothed classifier for serve"):
        ServedModel.of(network, (images, labels))


def test_unknown_limits():
    from smoothed.errors import ArgumentError

    for name, value in (("queue", 0), ("num_samples", True), ("body_seconds", 0), ("grace_seconds", math.nan)):
        with pytest.raises(ArgumentError, match=f"{name}: expected"):
            ServeSettings(**{name: value})


class TestPredictOnly:
    @pytest.fixture
    def fixed(self, run_service, served):
        return run_service(served, ServeSettings(predict_only=True))

    @pytest.mark.parametrize(
        "field", [{"sigma": 0}, {"seed": 1}, {"num_samples": 1}, {"vote": "soft"}, {"stop": None}, {"deadline_ms": 0.1}]
    )
    def test_a_request_cannot_choose_how_to_vote(self, fixed, png, sharp_image, field):
        (name,) = field
        message = f"expected the field image alone, for this service fixes the vote, got the field '{name}'"
        assert_problem(fixed.vote(**field), 422, message)
        file = {"image": ("a.png", png(sharp_image))}
        form = {name: "null" if field[name] is None else field[name]}
        assert_problem(fixed.client.post("/v1/predict", files=file, data=form), 422, message)

    def test_an_image_gets_the_vote_of_the_model(self, fixed, png, sharp_image):
        by_file = fixed.client.post("/v1/predict", files={"image": ("a.png", png(sharp_image))})
        for answer in (by_file, fixed.vote(sharp_image.tolist())):
            assert answer.status_code == 200
            assert answer.json()["ended"] in {"exact", "num_samples"}

    def test_there_is_no_explorer_and_the_interface_has_an_image_alone(self, fixed):
        for path in ("/", "/static/index.html", "/v1/images", "/v1/images/0.png"):
            assert fixed.client.get(path).status_code == 404
        for path in ("/v1/explore/vote", "/v1/explore/attack"):
            assert fixed.client.post(path, json={"image": {"id": 0}, "seed": 1}).status_code == 404
        page = fixed.client.get("/docs").text
        assert "To the explorer" not in page
        schema = fixed.client.get("/openapi.json").json()
        assert set(schema["paths"]) == {"/v1/predict", "/v1/model", "/v1/health", "/v1/ready", "/metrics"}
        contents = schema["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
        assert all(set(content["schema"]["properties"]) == {"image"} for content in contents.values())

    def test_it_is_true_or_false(self):
        with pytest.raises(ArgumentError, match="predict_only: expected True or False, got 1"):
            ServeSettings(predict_only=1)
