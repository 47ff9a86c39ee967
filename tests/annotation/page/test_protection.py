"""Whom the page lets in, and what of the disk it gives."""

from __future__ import annotations

import io

import numpy as np
import pytest
from desks import ask, make_desk, make_images, picture, sample_of, write_files
from PIL import Image

from kafal_pipeline.annotation.page.pictures import png

TOKEN = "secret-token"
GETS = ["/", "/page.js", "/page.css", "/icon.svg", f"/image/{sample_of(0)}"]
POSTS = ["start", "next", "answer", "undo", "earlier", "leave"]


def read(reply):
    return np.asarray(Image.open(io.BytesIO(reply.data)))


@pytest.mark.parametrize("path", GETS)
@pytest.mark.parametrize("query", ["", "?token=", "?token=secret-toke", "?token=Sécret", "?t=secret-token"])
def test_nothing_is_given_without_the_token(opened, path, query):
    client = opened().app.test_client()
    assert client.get(f"{path}?token={TOKEN}").status_code == 200
    reply = client.get(path + query)
    assert reply.status_code == 403
    assert b"terminal" in reply.data
    assert TOKEN.encode() not in reply.data


@pytest.mark.parametrize("what", POSTS)
def test_nothing_is_changed_without_the_token_in_a_header(opened, what):
    page = opened()
    sample = page.tab().next()[0]
    body = {"annotator": "Eve", "page": "x", "sample": sample, "status": "labelled", "label": "cat"}
    client = page.app.test_client()
    client.set_cookie("token", TOKEN)
    for headers in ({}, {"X-Token": "wrong"}):
        assert client.post(f"/api/{what}?token={TOKEN}", json=body, headers=headers).status_code == 403
    # A form of another site can send text, but no header and no JSON.
    form = client.post(f"/api/{what}", data="{}", content_type="text/plain", headers={"X-Token": TOKEN})
    assert form.status_code == 415
    assert page.store.read_all() == []


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "169.254.1.1", "[::1]", "", "localhost.evil:1"]
)
def test_other_names_of_this_machine_are_refused(opened, host):
    reply = opened().app.test_client().get(f"/?token={TOKEN}", headers={"Host": host})
    assert reply.status_code in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1:8888", "localhost", "LOCALHOST:1"])
def test_this_machine_is_let_in_also_through_a_tunnel_with_another_port(opened, host):
    assert opened().app.test_client().get(f"/?token={TOKEN}", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", [*GETS, "/nothing"])
def test_every_reply_forbids_what_a_page_does_not_need(opened, path):
    reply = opened().app.test_client().get(f"{path}?token={TOKEN}")
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    assert "Set-Cookie" not in reply.headers
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize(
    "path",
    [
        "/image/../../etc/passwd",
        "/image/..%2f..%2fetc%2fpasswd",
        "/image/%2fetc%2fpasswd",
        "/image/unlabelled%2fpicture 0.png",
        "/image/000000000005",
        "/..%2fserver.py",
        "/../server.py",
        "/page.html",
        "/static/page.js",
        "/labels/client_000.jsonl",
    ],
)
def test_files_are_never_given_by_path_and_images_only_if_they_are_asked_for(opened, tmp_path, path):
    images = make_images(6, files=True)
    ask(tmp_path, range(5))
    page = opened(desk=make_desk(tmp_path, images, write_files(tmp_path / "data", images, 8)))
    assert page.app.test_client().get(f"{path}?token={TOKEN}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"status": "labelled", "label": None},
        {"status": "labelled", "label": ""},
        {"status": "open", "label": None},
        {"status": "skipped", "label": "cat"},
        {"status": ["labelled"], "label": "cat"},
        {"status": "labelled", "label": ["cat"]},
        {"status": "labelled", "label": "cat", "annotator": " "},
        {"status": "labelled", "label": "cat", "annotator": "A\x00"},
        {"status": "labelled", "label": "cat", "annotator": "A" * 101},
        {"status": "labelled", "label": "cat", "annotator": None},
        {"status": "labelled", "label": "cat", "page": 3},
        {"status": "labelled", "label": "cat", "seconds": "12"},
        {"status": "labelled", "label": "cat", "seconds": True},
        {"status": "labelled", "label": "cat", "comment": "x" * 1001},
        {"status": "labelled", "label": "cat", "comment": {"a": 1}},
        {"status": "labelled", "label": "cat", "sample": "../../x"},
    ],
)
def test_what_is_no_answer_is_refused(opened, body):
    page = opened()
    reply = page.tab().post("answer", **{"sample": sample_of(0), **body})
    assert 400 <= reply.status_code <= 500
    assert reply.json["message"]
    assert page.store.read_all() == []


def test_a_label_that_is_no_class_is_refused_with_the_nearest(opened):
    page = opened()
    reply = page.tab().answer(sample_of(0), "hoarse")
    assert "Did you mean 'horse'?" in reply.json["message"]
    assert page.store.read_all() == []


def test_a_request_that_is_too_large_is_refused(opened):
    assert opened().tab().answer(sample_of(0), comment="x" * 100_000).status_code == 413


@pytest.mark.parametrize("body", ["[]", "3", '"x"', "{", "null"])
def test_a_request_that_is_no_object_is_refused(opened, body):
    headers = {"X-Token": TOKEN, "Content-Type": "application/json"}
    assert opened().app.test_client().post("/api/next", data=body, headers=headers).status_code == 400


def test_pixels_of_an_array_come_as_they_are(opened):
    page = opened(3, 2)
    client = page.app.test_client()
    for row in (1, 4):  # the second is a test image
        reply = client.get(f"/image/{sample_of(row)}?token={TOKEN}")
        assert reply.mimetype == "image/png"
        np.testing.assert_array_equal(read(reply), picture(row, 16))


@pytest.mark.parametrize(("channels", "shown"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGB"), (9, "RGB")])
def test_any_number_of_channels_can_be_shown(channels, shown):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    image = Image.open(io.BytesIO(png(pixels)))
    assert (image.mode, image.size) == (shown, (7, 5))
    np.testing.assert_array_equal(np.asarray(image).reshape(5, 7, -1)[..., 0], pixels[..., 0])


def test_a_folders_files_come_byte_for_byte(opened, tmp_path):
    images = make_images(3, 1, files=True)
    source = write_files(tmp_path / "data", images, 40)
    ask(tmp_path, range(3), [3])
    client = opened(desk=make_desk(tmp_path, images, source)).app.test_client()
    for row, file in enumerate([*images.train_files, *images.test_files]):
        assert client.get(f"/image/{sample_of(row)}?token={TOKEN}").data == (source / str(file)).read_bytes()
    (source / "unlabelled/picture 1.png").unlink()
    assert client.get(f"/image/{sample_of(1)}?token={TOKEN}").status_code == 404


def test_an_image_that_left_the_data_set_is_said_to_have(opened, tmp_path):
    ask(tmp_path, range(3))
    client = opened(desk=make_desk(tmp_path, make_images(2))).app.test_client()
    reply = client.get(f"/image/{sample_of(2)}?token={TOKEN}")
    assert reply.status_code == 404
    assert b"not in the data set" in reply.data
