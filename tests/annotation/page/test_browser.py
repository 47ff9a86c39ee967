"""The page in a real browser, without a window: Chromium, where there is one."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from desks import CLASSES, ask, make_desk, make_images, picture, sample_of, write_files
from PIL import Image

from kafal_pipeline.annotation.page.serve import PageServer

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture
def site(browser, tmp_path):
    """A function that serves a desk and opens tabs at it; whatever these complain about fails the test."""
    open_, complaints, requests = [], [], []

    def serve(rows=6, test=0, classes=CLASSES, size=16, files=False, **config):
        images = make_images(rows, test, classes, size, files)
        ask(tmp_path, range(rows), range(rows, rows + test), name="St Mary", classes=classes)
        source = write_files(tmp_path / "data", images, size) if files else None
        desk = make_desk(tmp_path, images, source, **config)
        server = PageServer(desk, None, 0, "kedro run --pipeline fal")
        thread = threading.Thread(target=server.run)
        thread.start()
        open_.append((server, thread))

        def tab(name="Anna", **options):
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
            context.set_default_timeout(15_000)
            tab = context.new_page()
            tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            tab.on("request", lambda request: requests.append(request.url))
            tab.goto(server.address)
            if name is not None:
                tab.fill("#given-name", name)
                tab.keyboard.press("Enter")
                shows(tab, *([] if rows == 0 else [None]))
            return tab

        def saved():
            return [(answer.annotator, answer.sample, answer.label or answer.status) for answer in desk.store.read(0)]

        return SimpleNamespace(tab=tab, saved=saved, desk=desk, server=server, requests=requests, source=source)

    serve.complaints = complaints
    yield serve
    for context in browser.contexts:
        context.close()
    for server, thread in open_:
        server.stop()
        thread.join(10)
    assert complaints == []


def shows(tab, row=None):
    """Wait until the page shows the image of a row, any for None."""
    wanted = "" if row is None else f"[src*='{sample_of(row)}']"
    tab.wait_for_selector(f"body:not(.saving) #stage > img{wanted}")


def text(tab, name):
    return tab.inner_text(f"#{name}")


def test_keys_label_one_image_after_another_until_all_are_answered(site):
    page = site(4, 1)
    tab = page.tab()
    assert "client 0 (St Mary), cycle 0, test image" in text(tab, "which")
    for key, following in zip("2suz", [0, 1, 2, 1], strict=True):
        tab.keyboard.press(key)
        shows(tab, following)
    for key, following in zip("n3", [2, 3], strict=True):
        tab.keyboard.press(key)
        shows(tab, following)
    assert text(tab, "counts") == "4 of 5"
    tab.keyboard.press("1")
    tab.wait_for_selector("#end")
    assert text(tab, "end-title") == "All 5 images are answered"
    assert text(tab, "end-command") == "kedro run --pipeline fal"
    rows = [(4, "dog"), (0, "skipped"), (1, "unusable"), (1, "open"), (1, "unknown_class"), (2, "horse"), (3, "cat")]
    assert page.saved() == [("Anna", sample_of(row), said) for row, said in rows]
    assert all(0 < answer.seconds < 60 for answer in page.desk.store.read(0) if answer.status != "open")


def test_it_says_when_the_run_can_resume(site):
    tab = site(4, complete=0.5).tab()
    for following in (1, 2):
        assert "enough" not in text(tab, "counts")
        tab.keyboard.press("1")
        shows(tab, following)
    assert text(tab, "counts") == "2 of 4, enough to resume the run"


def test_the_next_image_waits_until_the_answer_is_on_disk(site):
    page = site()
    tab = page.tab()
    held = []

    def hold(route):
        held.append(route)

    tab.route("**/api/answer", hold)
    tab.keyboard.press("2")
    tab.keyboard.press("3")  # too early: no image is shown yet that it could be about
    tab.wait_for_selector("body.saving #stage > img[src*='000000000000']")
    assert page.saved() == []
    held[0].continue_()
    shows(tab, 1)
    assert len(held) == 1
    assert page.saved() == [("Anna", sample_of(0), "dog")]


def test_a_key_that_is_held_down_answers_one_image(site):
    page = site()
    tab = page.tab()
    for _ in range(5):
        tab.keyboard.down("1")
        shows(tab, 1)
    assert len(page.saved()) == 1


def test_buttons_do_what_keys_do_and_a_comment_goes_with_the_answer(site):
    page = site()
    tab = page.tab()
    tab.keyboard.press("c")
    tab.keyboard.type("s u 1: no keys in here")
    tab.click("#classes >> text=dog")
    shows(tab, 1)
    assert tab.input_value("#comment") == ""
    tab.click("text=Not listed")
    shows(tab, 2)
    tab.click("#undo")
    shows(tab, 1)
    assert page.saved()[-1] == ("Anna", sample_of(1), "open")
    assert page.desk.store.read(0)[0].comment == "s u 1: no keys in here"


def test_earlier_answers_are_shown_and_changed(site):
    page = site()
    tab = page.tab()
    for key, following in zip("123", (1, 2, 3), strict=True):
        tab.keyboard.press(key)
        shows(tab, following)
    tab.keyboard.press("ArrowLeft")
    shows(tab, 2)
    tab.keyboard.press("ArrowLeft")
    shows(tab, 1)
    assert "Your answer 2 of 3: dog" in text(tab, "note")
    assert tab.get_attribute("#classes button:nth-child(2)", "aria-pressed") == "true"
    tab.keyboard.press("3")
    shows(tab, 2)
    tab.keyboard.press("ArrowRight")
    shows(tab, 3)
    assert tab.is_hidden("#note")
    assert page.desk.verdicts()[sample_of(1)].label == "horse"


def test_two_people_at_once_share_the_images(site):
    page = site(20)
    tabs = [page.tab(name) for name in ("Anna", "Ben")]
    for _ in range(10):
        for tab in tabs:
            tab.keyboard.press("1")
        for tab in tabs:
            tab.wait_for_selector("body:not(.saving)")
    for tab in tabs:
        tab.wait_for_selector("#end:not([hidden])", timeout=10_000)
    assert sorted(sample for _, sample, _ in page.saved()) == [sample_of(row) for row in range(20)]


def test_people_who_disagree_do_not_see_it_and_a_third_decides(site):
    page = site(1, annotators=2)
    for name, key in (("Anna", "1"), ("Ben", "2")):
        tab = page.tab(name)
        assert tab.is_hidden("#note")
        tab.keyboard.press(key)
        tab.wait_for_selector("#end:not([hidden])")
        assert text(tab, "end-title") == "Nothing is left for you now"
    third = page.tab("Cleo")
    assert "Others disagree" in text(third, "note")
    third.keyboard.press("2")
    third.wait_for_selector("text=The image is answered")
    assert page.desk.verdicts()[sample_of(0)].label == "dog"


def test_zoom_by_keys_wheel_and_drag(site):
    tab = site().tab()

    def place():
        return tab.evaluate("[viewer.scale, viewer.x, viewer.y]")

    assert "pixels" in tab.get_attribute("#stage > img", "class")
    tab.keyboard.press("p")
    assert "pixels" not in (tab.get_attribute("#stage > img", "class") or "")
    tab.keyboard.press("+")
    assert place() == [1.4, 0, 0]
    tab.mouse.move(300, 300)
    tab.mouse.wheel(0, -300)
    deadline = time.monotonic() + 10
    while (before := place())[0] < 2.5:
        assert time.monotonic() < deadline
    tab.mouse.down()
    tab.mouse.move(340, 330)
    tab.mouse.up()
    assert [after - was for was, after in zip(before, place(), strict=True)] == [0, 40, 30]
    tab.keyboard.press("0")
    assert place() == [1, 0, 0]
    tab.click("#closer")
    tab.keyboard.press("1")
    shows(tab, 1)
    assert place() == [1, 0, 0]


def test_two_fingers_zoom(site):
    tab = site().tab(has_touch=True)
    tab.evaluate(
        """() => {
          const touch = (kind, pointerId, clientX) => $("stage").dispatchEvent(
            new PointerEvent(kind, { pointerId, clientX, clientY: 400, pointerType: "touch", bubbles: true }));
          $("stage").setPointerCapture = () => {};
          touch("pointerdown", 1, 400); touch("pointerdown", 2, 500);
          touch("pointermove", 1, 350); touch("pointermove", 2, 550);
          touch("pointerup", 1, 350); touch("pointerup", 2, 550);
        }"""
    )
    assert tab.evaluate("viewer.scale") == pytest.approx(2)


def test_many_classes_are_found_by_their_names(site):
    names = [f"{kind} {number}" for kind in ("oak tree", "trout", "apple") for number in range(10)]
    page = site(classes=names)
    tab = page.tab()
    tab.keyboard.press("/")
    tab.keyboard.type("tr")
    assert tab.inner_text("#classes button:first-child") == "trout 0"  # names that begin so come first
    assert tab.locator("#classes button").count() == 20
    tab.keyboard.type("ee 7")
    tab.keyboard.press("Enter")
    shows(tab, 1)
    assert tab.locator("#classes button").count() == 30
    tab.keyboard.press("Enter")  # nothing is typed: nothing is chosen
    tab.keyboard.type("xyz")
    tab.keyboard.press("Enter")
    tab.keyboard.press("Escape")
    tab.keyboard.press("3")
    shows(tab, 2)
    assert page.saved() == [("Anna", sample_of(0), "oak tree 7"), ("Anna", sample_of(1), "oak tree 2")]


def test_classes_that_are_digits_have_their_own_keys(site):
    page = site(classes=[str(digit) for digit in range(10)])
    tab = page.tab()
    for key, following in zip("093", (1, 2, 3), strict=True):
        tab.keyboard.press(key)
        shows(tab, following)
    assert [said for *_, said in page.saved()] == ["0", "9", "3"]


def test_dark_and_light(site):
    tab = site().tab(color_scheme="dark")

    def ground():
        return tab.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.slice(4))")

    assert ground() < 60
    tab.keyboard.press("d")
    assert ground() > 200
    tab.reload()
    shows(tab)
    assert ground() > 200
    assert text(tab, "name") == "Anna"  # and is not asked again


@pytest.mark.parametrize("count", [3, 10, 100])
def test_everything_is_within_reach_on_any_screen(site, count):
    page = site(classes=[f"class number {number}" for number in range(count)])
    tab = page.tab(has_touch=True)
    for width, height in ((1280, 800), (768, 1024), (1024, 768), (390, 844), (844, 390)):
        tab.set_viewport_size({"width": width, "height": height})
        problems = tab.evaluate(
            """() => [document.documentElement, document.body, ...document.querySelectorAll("#stage, button, input")]
              .filter((part) => part.checkVisibility())
              .filter((part) => part.scrollWidth > part.clientWidth + 1 || part.offsetHeight < 40)
              .map((part) => part.outerHTML.slice(0, 200))"""
        )
        assert problems == [], (width, height)
        stage = tab.locator("#stage").bounding_box()
        assert stage["width"] * stage["height"] > 0.4 * width * height
        tab.locator("#classes button").last.scroll_into_view_if_needed()
        tab.locator("#classes button").last.tap()
        shows(tab, 1)
        tab.locator("#undo").tap()
        shows(tab, 0)
    assert page.saved()[-2][2] == f"class number {count - 1}"


def test_a_full_disk_is_shown_and_the_answer_offered_again(site, monkeypatch):
    page = site()
    tab = page.tab()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        tab.keyboard.press("2")
        tab.wait_for_selector("#banner:not([hidden])")
        assert "Make room there" in text(tab, "banner-text")
        assert "not saved yet" in text(tab, "banner-text")
        assert page.saved() == []
    tab.click("#again")
    shows(tab, 1)
    assert tab.is_hidden("#banner")
    assert page.saved() == [("Anna", sample_of(0), "dog")]
    site.complaints[:] = [text for text in site.complaints if "507" not in text]


def test_a_server_that_is_gone_is_shown_and_another_answer_can_be_chosen(site):
    page = site()
    tab = page.tab()
    tab.route("**/api/*", lambda route: route.abort())
    tab.keyboard.press("2")
    tab.wait_for_selector("#banner:not([hidden])")
    assert "does not reply" in text(tab, "banner-text")
    tab.click("#other")
    tab.keyboard.press("3")
    tab.wait_for_selector("#banner:not([hidden])")
    tab.unroute("**/api/*")
    tab.click("#again")  # it would try again by itself
    shows(tab, 1)
    assert page.saved() == [("Anna", sample_of(0), "horse")]
    site.complaints[:] = [text for text in site.complaints if "ERR_FAILED" not in text]


def test_an_image_that_cannot_be_shown_can_be_called_unusable_but_gets_no_class(site):
    page = site(3, files=True)
    (page.source / "unlabelled/picture 1.png").write_bytes(b"no image")
    tab = page.tab()
    tab.keyboard.press("1")
    tab.wait_for_selector("#broken:not([hidden])")
    tab.keyboard.press("2")
    assert tab.is_disabled("#classes button:first-child")
    tab.keyboard.press("u")
    shows(tab, 2)
    assert [said for *_, said in page.saved()] == ["cat", "unusable"]


def test_photographs_stand_as_they_were_taken(site):
    page = site(2, files=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(np.ascontiguousarray(picture(0, 64)[:32])).save(
        page.source / "unlabelled/picture 0.png", "jpeg", exif=exif
    )
    tab = page.tab()
    assert tab.evaluate("[viewer.image.naturalWidth, viewer.image.naturalHeight]") == [32, 64]


def test_nothing_comes_from_the_network(site):
    page = site()
    tab = page.tab()
    tab.keyboard.press("1")
    shows(tab, 1)
    base = page.server.address.partition("?")[0]
    assert len(page.requests) > 10
    assert all(url.startswith(base) for url in page.requests)
    assert tab.context.cookies() == []
