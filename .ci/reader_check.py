"""Reads and annotates films in headless Chromium, as two readers would. Usage: reader_check.py SPINEXR FOLDER"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

PROGRAM, FOLDER = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
PATIENCE_S = 60


def spinexr(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"spinexr {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def service(data):
    port = free_port()
    config = FOLDER / "serve.toml"
    lines = [f'data_dir = "{data}"', "[http]", f'listen = "127.0.0.1:{port}"', "[dicom]", "enabled = false"]
    config.write_text("\n".join(lines) + "\n")
    with open(FOLDER / "serve.log", "w") as log:
        process = subprocess.Popen([PROGRAM, "serve", "--config", config, "--explain"], stderr=log, stdout=log)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def ask(url, body=None, headers=None):
    request = urllib.request.Request(url, data=body, headers=headers or {})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read())


def wait_for(what, ready):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            found = ready()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.2)
    sys.exit(f"waited {PATIENCE_S} s for {what}")


class Reader:
    """A browser with one reader signed in."""

    def __init__(self, base, name):
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--window-size=1500,950", "--use-gl=angle",
                         "--use-angle=swiftshader", "--enable-unsafe-swiftshader"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.browser = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        self.name = name
        self.browser.get(f"{base}/reader/")
        self.until("the sign-in", lambda: self.one("#reader-name").is_displayed())
        self.one("#reader-name").send_keys(name, Keys.ENTER)
        self.wait_for_film()

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def until(self, what, ready):
        # Lists are made anew with every change, so that what was found may be gone when it is looked at.
        wait = WebDriverWait(self.browser, PATIENCE_S, ignored_exceptions=[StaleElementReferenceException])
        wait.until(lambda _: ready(), f"{self.name}: waited for {what}")

    def click(self, selector, which=0):
        def done():
            self.all(selector)[which].click()
            return True

        self.until(f"{selector} to be there", done)

    def value(self, script):
        return self.browser.execute_script(f"return {script}")

    def wait_for_film(self):
        self.until("the film", lambda: self.all(".pane .empty[hidden]") and not self.all(".pane .empty:not([hidden])"))

    def press(self, *keys):
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def drag(self, x, y, dx, dy):
        """From a place of the pane, px from its middle."""
        pane = self.one(".pane")
        ActionChains(self.browser).move_to_element_with_offset(pane, x, y).click_and_hold().move_by_offset(
            dx, dy
        ).release().perform()

    def saved(self):
        self.until("saving", lambda: self.one("#saved").text == "Saved")

    def expect(self, what, condition):
        if not condition:
            self.shot("failed")
            sys.exit(f"{self.name}: expected {what}; see {FOLDER}/failed.png")

    def shot(self, name):
        self.browser.save_screenshot(str(FOLDER / f"{name}.png"))

    def complaints(self):
        """What the page's console holds, but for answers that are part of a test."""
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]

    def close(self):
        found = self.complaints()
        self.browser.quit()
        if found:
            sys.exit(f"{self.name}: the page complained: {found}")


def corner(reader):
    return reader.one(".pane .corner.bottom").text


def looks(first):
    """Pixels, window, zoom, inversion."""
    # A canvas of WebGL can be read only in the frame that painted it, so the page itself presses the key.
    script = """
      const [key, done] = arguments;
      document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
      requestAnimationFrame(() => {
        const small = document.createElement('canvas');
        small.width = small.height = 64;
        const paper = small.getContext('2d');
        paper.drawImage(document.querySelector('.pane canvas'), 0, 0, 64, 64);
        const values = paper.getImageData(0, 0, 64, 64).data.filter((_, i) => i % 4 === 0);
        done(values.reduce((sum, value) => sum + value, 0) / values.length);
      });"""

    def brightness(key):
        return first.browser.execute_async_script(script, key)

    first.browser.set_script_timeout(PATIENCE_S)
    plain = brightness("r")
    first.expect("a film that is not black", plain > 3)
    inverted = brightness("i")
    first.expect("an inverted film to be brighter or darker", abs(inverted - plain) > 5)
    first.press("i")
    before = corner(first)
    first.press("w")
    first.drag(0, 0, 120, -60)
    first.expect("another window after a drag", corner(first) != before)
    first.press("r", "o")
    first.until("one to one", lambda: "zoom 100 %" in corner(first))
    first.press("f")
    first.until("the whole film", lambda: "zoom 100 %" not in corner(first))
    return plain


def annotates(first):
    """Draws, moves, relabels, undoes, accepts, rejects, completes."""
    first.press("d")
    first.drag(-40, -60, 90, 70)
    first.until("a box", lambda: len(first.all("#my-boxes li[data-id]")) == 1)
    first.press("v", "2")
    second = first.value("document.querySelector('#label').options[1].value")
    first.until("the second finding", lambda: first.value("document.querySelector('#my-boxes select').value") == second)

    def place():
        return first.value("document.querySelector('svg .mine rect.box').getAttribute('x')")

    before = place()
    first.drag(5, -20, 40, 25)
    first.until("a moved box", lambda: place() != before)
    moved = place()
    first.click('[data-act="undo"]')
    first.until("undo", lambda: place() == before)
    first.click('[data-act="redo"]')
    first.until("redo", lambda: place() == moved)
    first.saved()
    first.shot("annotating")
    # The model's boxes: fewer and more, taken over, turned down.
    for _ in range(20):
        first.press("]")
    candidates = len(first.all("#model-boxes li:not(.nothing)"))
    first.expect("boxes of the model", candidates >= 2)
    first.press(Keys.TAB, "a")
    first.until("an accepted box", lambda: len(first.all("#my-boxes li[data-id]")) == 2)
    first.press(Keys.TAB, "x")
    first.until("a rejected box", lambda: len(first.all("#model-boxes li.rejected")) == 1)
    first.saved()
    first.shot("correcting")
    # What was saved is there after a reload.
    first.browser.refresh()
    first.wait_for_film()
    first.until("the saved boxes", lambda: len(first.all("#my-boxes li[data-id]")) == 2)
    first.press(Keys.ENTER)
    first.until("a completed film in the list", lambda: len(first.all("#studies .dot.complete")) == 1)
    for count in (2, 3):
        first.until("the next film", lambda: not first.all("#studies [aria-current] .dot.complete"))
        first.wait_for_film()
        first.press("n", Keys.ENTER)
        first.until(f"{count} completed films", lambda: len(first.all("#studies .dot.complete")) == count)  # noqa: B023
    first.wait_for_film()


def shows_box_evidence(first):
    """What spoke for "abnormal", then for the boxes, then nothing, on some film with a box of the model."""
    seen = lambda: [image.get_attribute("href") for image in first.all("svg image")]  # noqa: E731
    for at in range(len(first.all("#studies button.film"))):
        first.all("#studies button.film")[at].click()
        first.wait_for_film()
        first.press("g")
        first.until("evidence for abnormal", lambda: len(seen()) == 1)
        for_abnormal = seen()
        first.press("g")
        first.until("another evidence or none", lambda: seen() != for_abnormal)  # noqa: B023
        if seen():
            time.sleep(1)
            first.shot("box_evidence")
            first.press("g")
            first.until("no evidence", lambda: not seen())
            return
    raise AssertionError("no film has evidence for a box")


def shows(first):
    first.click("#studies button.film")
    first.wait_for_film()
    first.press("g")
    first.until("evidence", lambda: len(first.all("svg image")) == 1)
    time.sleep(1)
    first.shot("evidence")
    first.press("g")  # the boxes' evidence, where the model shows any
    if first.all("svg image"):
        first.press("g")
    first.until("no evidence", lambda: not first.all("svg image"))
    shows_box_evidence(first)
    first.all("#studies button.film")[-1].click()  # of a study of two films
    first.wait_for_film()
    first.press("s")
    first.until("two views", lambda: len(first.all(".pane")) >= 2)
    first.wait_for_film()
    time.sleep(1)
    first.shot("side_by_side")
    first.press("s")
    first.wait_for_film()
    first.press("?")
    first.until("the keys", lambda: first.one("#keys").is_displayed())
    first.shot("keys")
    first.press(Keys.ESCAPE)


def is_fast(first):
    """Time of a frame while the window moves, in software GL; the film has full size."""
    script = """
      const done = arguments[0], times = [];
      const pane = document.querySelector('.pane');
      let last = performance.now(), n = 0;
      const turn = () => {
        const now = performance.now(); times.push(now - last); last = now;
        if (++n > 30) return done(times.slice(1).sort((a, b) => a - b)[15]);
        pane.dispatchEvent(new WheelEvent('wheel', { deltaY: n % 2 ? 10 : -10, clientX: 700, clientY: 500, cancelable: true }));
        requestAnimationFrame(turn);
      };
      requestAnimationFrame(turn);"""
    first.browser.set_script_timeout(PATIENCE_S)
    return first.browser.execute_async_script(script)


def main():
    shutil.rmtree(FOLDER / "data", ignore_errors=True)
    for name in ("films", "export"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    films = FOLDER / "films"
    spinexr("synth", films, "--studies", 2, "--test-studies", 1, "--size", 2455, "--seed", 19, "--balanced")
    with service(FOLDER / "data") as base:
        wait_for("the service", lambda: ask(f"{base}/readyz"))
        sent = sorted((films / "train_images").iterdir())
        for film in sent:
            ask(f"{base}/api/v1/films", film.read_bytes(), {"Content-Type": "application/dicom"})
        listed = lambda: ask(f"{base}/api/v1/reading/films", headers={"X-Reader": "x"})["films"]  # noqa: E731
        wait_for("readings by the model", lambda: all(film["state"] == "done" for film in listed()))

        first = Reader(base, "dr.first")
        plain = looks(first)
        frame_ms = is_fast(first)
        annotates(first)
        shows(first)
        count = len(first.all("#studies button.film"))
        first.expect(f"{len(sent)} films", count == len(sent))

        second = Reader(base, "dr.second")
        second.expect("no reading of the first reader before the own", not second.one("#others").is_displayed())
        second.press("d")
        second.drag(-30, -50, 90, 70)
        second.until("a box", lambda: len(second.all("#my-boxes li[data-id]")) == 1)
        second.press("2")
        second.saved()
        second.press(Keys.ENTER)
        second.until("a completed film", lambda: len(second.all("#studies .dot.complete")) == 1)
        second.click("#studies button.film")
        second.until("the first reader's boxes", lambda: len(second.all("svg .other .box")) >= 1)
        second.shot("second_reader")
        first.close()
        second.close()
        pairs = ask(f"{base}/api/v1/reading/agreement?iou=0.3")["pairs"]
        assert len(pairs) == 1 and pairs[0]["agreement"]["films"] == 1, pairs
        agreement = pairs[0]["agreement"]["boxes"]

    data, export = FOLDER / "data", FOLDER / "export"
    told = json.loads(spinexr("readings", "agreement", "--data", data, "--iou", 0.3, "--json"))
    assert told["pairs"] == pairs, told
    spinexr("readings", "export", "--data", data, "--reader", "dr.first", "-o", export)
    spinexr("data", "check", export)
    # Three films are too few to draw abnormal and normal ones in proportion.
    recipe = Path("configs/synthetic/retinanet_mini.toml").read_text().splitlines()
    config = FOLDER / "retinanet_mini.toml"
    config.write_text("\n".join(line for line in recipe if not line.startswith("abnormal_fraction")))
    shutil.rmtree(FOLDER / "run", ignore_errors=True)
    short = ["schedule.total_steps=2", "schedule.warmup_steps=1", "data.validation_fraction=0.5", f"data.dir={export}"]
    spinexr("train", config, "--out", FOLDER / "run", *(word for key in short for word in ("--set", key)))
    print(f"web reader: {len(sent)} films of 2455 px, mean grey {plain:.0f}, {frame_ms:.0f} ms a frame in software GL, "
          f"{agreement['matched']} box of both readers; the readings train; screenshots in {FOLDER}")


main()
