"""Debian's Chromium, driven by playwright. Without either of them, the tests are skipped."""

import secrets
import shutil
import threading
import time
from contextlib import contextmanager

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser")


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """A function that opens the page of a result from disk; what the page complains about is an error at the end."""
    contexts, complaints = [], []

    def open_page(result, against=None, **options):
        path = result.report(tmp_path / f"report{len(contexts)}.html", against=against)
        context = browser.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if "http" in request.url[:5] else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, complaints


@contextmanager
def serving(token=None):
    """The address of a service of the bundled network, which runs in a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed: make test-browser")
    pytest.importorskip("fastapi", reason="the extra serve is not installed: make test-browser")
    from smoothed.serve.app import Service
    from smoothed.serve.logs import RequestLog
    from smoothed.serve.served import ServedModel

    served = ServedModel.of("resnet20-cni-w")
    app = Service(served, token=token, log=RequestLog([].append)).app
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="on", ws="none", log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def service():
    """The address of a service without a token."""
    with serving() as address:
        yield address


@pytest.fixture(scope="session")
def guarded_service():
    """The address of a service with a token, and the token."""
    token = secrets.token_hex()
    with serving(token) as address:
        yield address, token


CALM = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}


@pytest.fixture(scope="session")
def explorer_context(browser):
    """A context of the browser for all pages without options, which share its cache."""
    context = browser.new_context(**CALM)
    yield context
    context.close()


@pytest.fixture
def open_explorer(browser, service, explorer_context):
    """A function that opens the explorer with a view. Complaints of the page are errors at the end, but those expected.

    Motion is off, so that the page waits for nothing but the service.
    """
    contexts, pages, complaints, expected = [], [], [], []

    def open_explorer(view="", *, at=None, refused=(), prepare=None, **options):
        """Open `view`, the part of the address behind `#`.

        Args:
            view: settings.
            at: address of the service; None for the one without a token.
            refused: texts of complaints that are expected; the browser notes each answer that is an error.
            prepare: receives the page before it opens.
            options: options of the browser's context.
        """
        expected.extend(refused)
        if options:
            contexts.append(browser.new_context(**{**CALM, **options}))
        page = (contexts[-1] if options else explorer_context).new_page()
        pages.append(page)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if prepare is not None:
            prepare(page)
        page.goto(f"{service if at is None else at}#{view}")
        page.locator("#image-list [role=option]").last.wait_for()
        return page

    yield open_explorer
    for opened in [*pages, *contexts]:
        opened.close()
    complaints = [text for text in complaints if not any(part in text for part in expected)]
    assert not complaints, complaints
