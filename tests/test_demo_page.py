"""The demo page in a real browser: real clicks and keys on a served page, which reads what is shown and every request
that is made.

Chromium is the system's, driven by Playwright; where there is none, these tests are skipped.
"""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image, ImageFilter

from seg_recipe.demo.fragments import OPACITY
from seg_recipe.inference import load_segmenter
from seg_recipe.labels import FACE, LabelSpace
from tests.demo_models import save_model
from tests.test_demo_comparison import hostile_uploads, photo
from tests.tiny import LABELS

ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
PATIENCE = 120_000  # milliseconds, on a machine that does much else
ROUNDS = 8
OTHER = LabelSpace(names=("void", "Left", "disc", "tree"))

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)"),
]


@contextmanager
def served(*arguments, script=ROOT / "scripts" / "demo.py", **settings):
    """The script in a process of its own; (process, the address that it printed)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **settings}
    command = [
        sys.executable,
        str(script),
        *map(str, arguments),
        "--port",
        "0",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=script.parent
    )
    guard = threading.Timer(PATIENCE / 1000, process.kill)  # a page that does not come must not hold up the tests
    guard.start()
    try:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if found := re.search(r"http://\S+", line):
                break
        else:
            pytest.fail("".join(printed))
        guard.cancel()
        yield process, found[0]
    finally:
        guard.cancel()
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    spaces = {"face": FACE, "tiny": LABELS, "other": OTHER}
    return {name: save_model(folder / name, space, seed) for seed, (name, space) in enumerate(spaces.items())}


@pytest.fixture(scope="module")
def address(models):
    sent = models["face"].parent / "sent"
    sent.mkdir()
    with served(models["face"], "--compare", models["tiny"], TMPDIR=str(sent)) as (_, url):
        yield url


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed (pip install playwright)"
    )
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield chromium
        chromium.close()


@contextmanager
def opened(browser, address, width=1280, height=900):
    """A page of a visitor of its own; it fails for a request to any other host, a script's error, or an error in the
    console.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, permissions=["camera"])
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    requests, troubles = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_selector("#classes #opacity")
    yield page
    context.close()
    assert requests and not [url for url in requests if urlsplit(url).hostname not in ("127.0.0.1", None)]
    assert not troubles


def choose(page, name: str, content: bytes):
    """Choose a file as a visitor does."""
    with page.expect_file_chooser() as chooser:
        page.click("#picture button")
    chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def remove(page):
    page.click("#picture button[aria-label='Remove Image']")


def upload(page, name: str, content: bytes):
    """Choose a file where there is none; wait until the page has said what it made of it."""
    page.wait_for_function("!document.querySelector('#status p')")
    choose(page, name, content)
    page.wait_for_selector("#status p")
    return page.inner_text("#status")


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def smooth(size=(96, 64), seed=0) -> Image.Image:
    """A picture without noise, which JPEG would change."""
    return photo(size, seed).filter(ImageFilter.GaussianBlur(3))


def shown(page, number: int = 0) -> np.ndarray:
    """The pixels of a picture as the page has it: (height, width, 3)."""
    source = page.locator("#views img").nth(number).get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))).astype(int)


def wait_for_change(page, number: int = 0, *, act) -> np.ndarray:
    before = page.locator("#views img").nth(number).get_attribute("src")
    act()
    page.wait_for_function(
        "([n, old]) => document.querySelectorAll('#views img')[n]?.src !== old", arg=[number, before]
    )
    return shown(page, number)


def shares(page, column: int = 0) -> dict[str, float]:
    cells = page.locator("#classes tbody tr").evaluate_all(
        "rows => rows.map(row => [row.querySelector('th').innerText.trim(), "
        f"parseFloat(row.querySelectorAll('td')[{column}].innerText)])"
    )
    return dict(cells)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_picture_its_mask_opacity_and_toggles(browser, address, models, width):
    picture = smooth((160, 120))
    expected = load_segmenter(models["face"], device="cpu", precision="fp32").masks([picture])[0]
    colours, pixels = np.array(FACE.palette)[expected], np.asarray(picture).astype(int)
    with opened(browser, address, width) as page:
        assert "Done in" in upload(page, "a.png", png(picture))
        page.wait_for_selector("#views img")
        assert page.locator("#views figcaption").all_inner_texts()[0].startswith("A face")
        blended = pixels + (colours - pixels) * OPACITY
        assert np.abs(shown(page) - blended).mean() < 3, "JPEG apart"
        assert sum(shares(page).values()) == pytest.approx(100, abs=1.0) and sum(
            shares(page, 1).values()
        ) == pytest.approx(100, abs=1.0)
        largest = max(shares(page), key=shares(page).get)
        assert shares(page)[largest] == pytest.approx(100 * (expected == FACE.label2id[largest]).mean(), abs=0.3)

        focus = page.locator("#opacity")
        covered = wait_for_change(page, act=lambda: focus.fill("100"))
        page.wait_for_function("document.querySelector('#classes output').innerText === '100 %'")
        assert np.abs(covered - colours).mean() < 3

        box = page.get_by_role("checkbox", name=largest, exact=True)
        bare = wait_for_change(page, act=box.click)
        there = expected == FACE.label2id[largest]
        assert np.abs(bare - pixels)[there].mean() < 5 and np.abs(bare - covered)[~there].mean() < 3
        assert box.evaluate("box => box === document.activeElement"), "the focus stays where it was"
        nothing = wait_for_change(page, act=page.get_by_role("button", name="Show none").click)
        assert np.abs(nothing - pixels).mean() < 3
        everything = wait_for_change(page, act=page.get_by_role("button", name="Show all").click)
        assert np.abs(everything - colours).mean() < 3
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if folder := os.environ.get("DEMO_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/demo-{width}.png", full_page=True)


def test_a_drawn_face_can_be_repeated_and_is_judged(browser, address):
    with opened(browser, address) as page:
        page.fill("#seed input", "3")
        page.press("#seed input", "Enter")
        page.wait_for_selector("#views figure:nth-child(4)")
        captions = page.locator("#views figcaption").all_inner_texts()
        assert (
            re.match(r"A face mean IoU 0\.\d{3}$", captions[0]) and captions[1] == "B tiny" and captions[2] == "Truth"
        )
        assert re.match(r"Difference the same for [\d.]+% of the pixels$", captions[3])
        assert "IoU" in page.inner_text("#classes tbody")
        first = shown(page, 2)
        wait_for_change(page, 2, act=lambda: page.click("#another"))
        assert page.input_value("#seed input") != "3"
        page.fill("#seed input", "3")
        assert np.array_equal(wait_for_change(page, 2, act=lambda: page.click("#draw")), first)
        page.fill("#seed input", "-1")
        page.click("#draw")
        page.wait_for_selector("#status [role=alert]")
        assert page.inner_text("#status") == "The seed is -1; wanted a whole number from 0 up."


def test_the_camera(browser, address):
    with opened(browser, address) as page:
        page.click("#picture button[aria-label='Capture from camera']")
        page.get_by_role("button", name=re.compile("click to access webcam", re.IGNORECASE)).click()
        page.wait_for_function("document.querySelector('#picture video')?.videoWidth > 0")
        page.click("#picture button[aria-label*='capture' i]:not([aria-label='Capture from camera'])")
        page.wait_for_selector("#views img")
        assert shown(page).std() > 10, "Chromium's test picture"


SAID = {
    "bomb.png": "its header claims more than",
    "drawing.png": "no picture in a format",
    "cut.png": "cannot be read",
}


def test_what_cannot_be_read_is_one_line_on_the_page(browser, address):
    with opened(browser, address) as page:
        upload(page, "good.png", png(photo()))
        page.wait_for_selector("#views img")
        for name, text in SAID.items():
            remove(page)
            line = upload(page, name, hostile_uploads()[name])
            assert text in line and "\n" not in line and "/tmp" not in line
            assert page.locator("#views img").count() == 0, "no result of an earlier picture stays under the error"


def test_a_picture_chosen_while_the_last_one_is_on_its_way_is_seen(browser, address):
    """Gradio's queue (6.31) lost what was asked for while its stream of answers closed; the page was dead from then
    on.
    """
    said = {"good.png": "Done in", **SAID}
    sent = {"good.png": png(photo()), **hostile_uploads()}
    with opened(browser, address) as page:
        for turn, (name, text) in enumerate(ROUNDS * list(said.items())):
            if turn:
                remove(page)
            choose(page, name, sent[name])
            page.wait_for_function("text => document.querySelector('#status').innerText.includes(text)", arg=text)
            page.wait_for_selector("#views img" if name == "good.png" else "#views .empty")


@pytest.mark.parametrize(
    "marks", [{"meta": {"_type": "gradio.FileData"}}, {}, {"meta": {"_type": "gradio.FileData"}, "is_stream": True}]
)
@pytest.mark.parametrize("event", [0, 1])
def test_a_file_of_the_server_cannot_be_asked_for(address, models, tmp_path, marks, event):
    """Which Gradio alone would allow on a mounted page: a path in a request, for the picture or in the place of a
    number.
    """
    secret = tmp_path / "secret.png"
    photo().save(secret)
    session = f"nobody-{event}-{len(marks)}"
    file = {"path": str(secret), **marks}
    asked = {"data": [file] if event == 0 else [file, True], "fn_index": event, "session_hash": session}
    headers = {"Content-Type": "application/json"}
    with pytest.raises(HTTPError, match="500"):
        urlopen(Request(f"{address}/gradio_api/run/predict", json.dumps(asked).encode(), headers), timeout=60)
    folder = models["face"].parent / "sent"
    assert [path.name for path in folder.iterdir()] and not list(folder.rglob("secret*")), (
        "nor is it copied to where files are served from"
    )
    with pytest.raises(HTTPError, match="403"):
        urlopen(f"{address}/gradio_api/file={secret}", timeout=60)


def test_two_visitors_do_not_see_each_other(browser, address):
    with opened(browser, address) as one, opened(browser, address) as two:
        upload(one, "one.png", png(smooth(seed=1)))
        upload(two, "two.png", png(smooth(seed=2)))
        one.wait_for_selector("#views img")
        two.wait_for_selector("#views img")
        before = shown(two)
        bare = wait_for_change(one, act=lambda: one.locator("#opacity").fill("0"))
        assert np.abs(bare - np.asarray(smooth(seed=1))).mean() < 3
        assert np.array_equal(shown(two), before)


def test_every_control_is_reached_by_tab_and_has_a_name(browser, address):
    with opened(browser, address) as page:
        upload(page, "a.png", png(photo()))
        page.wait_for_selector("#views img")
        assert page.locator("img:visible:not([alt])").count() == 0
        assert all(page.locator("#views img").evaluate_all("images => images.map(image => image.alt)"))
        page.evaluate("document.activeElement.blur()")
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate(
                "(() => { const e = document.activeElement; return e.id || e.value + e.type + (e.ariaLabel ?? '') + "
                "e.innerText; })()"
            ))  # fmt: skip
        controls = page.locator(":is(button, input, [tabindex='0']):visible:not([disabled]):not([tabindex='-1'])")
        wanted = controls.evaluate_all(
            "all => all.map(e => e.id || e.value + e.type + (e.ariaLabel ?? '') + e.innerText)"
        )
        assert len(wanted) > 10 and set(wanted) <= reached
        nameless = controls.evaluate_all(
            "all => all.filter(e => !(e.innerText.trim() || e.ariaLabel || e.labels?.length || e.title)).map(e => "
            "e.outerHTML)"
        )
        assert nameless == []
        page.focus("#opacity")
        shown_before = page.inner_text("#classes output")
        wait_for_change(page, act=lambda: page.keyboard.press("ArrowRight"))
        assert page.inner_text("#classes output") != shown_before


def test_one_model_of_other_classes_has_no_truth_and_ctrl_c_ends_quietly(browser, models):
    with served(models["other"]) as (process, address):
        with opened(browser, address, 390) as page:
            page.click("#draw")
            page.wait_for_selector("#views img")
            assert page.locator("#views figcaption").all_inner_texts() == ["other"]
            assert page.inner_text("#classes thead").split() == ["Class", "Share"]
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=PATIENCE / 1000)
        assert process.returncode == 0 and printed.strip() == "stopped"
