"""The web application: the page's files, images by their ids, and the page's requests."""

from __future__ import annotations

import logging
from importlib.resources import files

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, NotFound

from kafal_pipeline.annotation.page.api import Api
from kafal_pipeline.annotation.page.pictures import Pictures
from kafal_pipeline.annotation.page.protection import protect
from kafal_pipeline.annotation.page.queue import Queue
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite

PAGE = "page.html"

TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Media types of the page's files."""

logger = logging.getLogger(__name__)


def make_app(queue: Queue, pictures: Pictures, token: str, resume: str) -> Flask:
    """Return the application. `resume`: the command that resumes the run once all is answered."""
    app = Flask(__name__, static_folder=None)
    protect(app, token)
    app.register_blueprint(Api(queue, resume).blueprint, url_prefix="/api")
    static = {path.name: path.read_bytes() for path in files(__package__).joinpath("static").iterdir()}

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> ResponseReturnValue:
        if request.method == "POST":
            return jsonify(message=error.description), error.code or 500
        return Response(f"{error.code}. {error.description}\n", error.code or 500, mimetype="text/plain")

    @app.errorhandler(UserError)
    def explain(error: UserError) -> ResponseReturnValue:
        logger.error("%s", error)
        return jsonify(message=str(error)), 507 if isinstance(error, CannotWrite) else 500

    @app.get("/")
    def page() -> Response:
        return Response(static[PAGE].replace(b"{token}", token.encode()), mimetype="text/html")

    @app.get("/<name>")
    def file(name: str) -> Response:
        if name not in static or name == PAGE:
            raise NotFound("There is no such page.")
        return Response(static[name], mimetype=TYPES[name.rpartition(".")[2]])

    @app.get("/image/<sample>")
    def image(sample: str) -> Response:
        if sample not in queue.board.known:
            raise NotFound("This image is not asked for.")
        try:
            picture = pictures.read(sample)
        except UserError as error:
            logger.error("%s", error)
            raise NotFound(str(error)) from None
        return Response(picture.content, mimetype=picture.media_type)

    return app
