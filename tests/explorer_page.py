"""What tests of the explorer do on its page, and the images that they use."""

import base64
from io import BytesIO

from PIL import Image

from smoothed.data.sample import load_sample

FROG, BOAT = 3, 1
"""Bundled images."""


def wait(page, seconds=60):
    """Wait for the end of a run."""
    page.locator("#views[aria-busy=false]").wait_for(timeout=1000 * seconds)


def run(page, button="#run"):
    """Start a run and wait for its end. The click itself marks the views as busy."""
    page.click(button)
    wait(page)


def bundled(number):
    sample = load_sample()
    return sample.images[number].float() / 255, int(sample.labels[number]), sample.classes


def png(image):
    """The PNG file of pixels in [0, 1]."""
    file = BytesIO()
    Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "png")
    return file.getvalue()


def drop(page, name, data, kind="image/png"):
    """Drop a file on the page."""
    transfer = page.evaluate_handle(
        "([name, text, type]) => { const t = new DataTransfer();"
        " t.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type })); return t; }",
        [name, base64.b64encode(data).decode(), kind],
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
