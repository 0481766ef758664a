"""The demo in a real headless browser: type, click, see the result. `make test-browser` runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 90
MILLISECONDS = 30_000
# A mark-up that would give the page another title if it were ever obeyed.
ATTACK = "<img src=x onerror=\"document.title='owned'\">"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run `genmodels demo` and yield the address that it prints; Ctrl-C must end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hf_genmodels", "demo", str(folder), "--port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"http://127.0.0.1:{port}"), line
        yield line.split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser: one that is installed, or playwright's own."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield window
        window.close()


@pytest.fixture
def visit(
    browser: Any, models: dict[str, Path], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Any]]:
    """Open the demo of a model; when the test is over, nothing but that server was asked anything."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(MILLISECONDS)
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    with ExitStack() as stack:

        def go(kind: str) -> Any:
            address = stack.enter_context(served(models[kind]))
            page.goto(address)
            page.get_by_role("heading", name=models[kind].name).wait_for()
            return page

        yield go
        shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
        page.screenshot(path=shots / f"{request.node.name}.png")
        page.close()
    strangers = [url for url in asked if not re.match(r"(https?://127\.0\.0\.1:|data:|blob:)", url)]
    assert asked
    assert not strangers


def test_a_prompt_is_typed_and_continued(visit):
    page = visit("writer")
    page.locator("#prompt textarea").fill("Once upon")
    page.get_by_role("button", name="Write").click()
    page.wait_for_function("document.querySelector('#note textarea').value.startsWith('seed ')")
    text = page.locator("#text textarea").input_value()
    assert text.startswith("Once upon")
    assert len(text) > len("Once upon")


def test_a_mistake_is_a_notice_in_which_markup_is_only_text(visit):
    page = visit("writer")
    page.locator("#prompt textarea").fill(ATTACK + "x" * 100)
    page.get_by_role("button", name="Write").click()
    notice = page.get_by_text("Shorten the prompt")
    notice.wait_for()
    assert "<img src=x" in notice.inner_text()
    assert page.locator("img[src=x]").count() == 0
    assert page.title() != "owned"


def test_a_text_is_rewritten_with_scores_and_an_attention_map(visit):
    page = visit("translator")
    page.locator("#source textarea").fill("Good morning.")
    page.get_by_label("number input for Results").fill("3")
    page.get_by_role("button", name="Rewrite").click()
    page.wait_for_function("document.querySelector('#best textarea').value !== ''")
    cells = page.locator("#results").get_by_role("gridcell")
    cells.nth(5).wait_for()
    scores = [float(cells.nth(2 * row).inner_text()) for row in range(3)]
    assert scores == sorted(scores, reverse=True)
    page.locator("#attention img").wait_for()
    wait_for_images(page, "#attention img", 1)


def test_a_label_is_chosen_and_its_images_are_seen(visit):
    page = visit("class")
    page.get_by_label("Label").click()
    page.get_by_role("option", name="Bag").click()
    page.get_by_label("number input for Images").fill("5")
    page.get_by_role("button", name="Draw").click()
    assert wait_for_images(page, "#images .grid-container img", 5) == [8] * 5


def test_images_of_a_prompt_are_seen(visit):
    page = visit("text")
    page.locator("#prompt input, #prompt textarea").first.fill("a red heart")
    page.get_by_role("button", name="Draw").click()
    assert wait_for_images(page, "#images .grid-container img", 16) == [8] * 16


def wait_for_images(page: Any, selector: str, count: int) -> list[int]:
    """Wait until so many images are there and loaded, and return their widths in pixels of their own."""
    page.wait_for_function(
        "([selector, count]) => { const found = [...document.querySelectorAll(selector)];"
        "return found.length === count && found.every(i => i.complete && i.naturalWidth > 0); }",
        arg=[selector, count],
    )
    widths = "found => found.map(image => image.naturalWidth)"
    return page.locator(selector).evaluate_all(widths)
