"""The addresses of a server: the page, detections of one file, and TensorFlow Serving's REST form."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tfod_zoo.serving.admission import Admission, Busy
from tfod_zoo.serving.refusal import Refusal
from tfod_zoo.serving.served_model import VERSION, ServedModel

BODY_SECONDS = 30.0  # to send a body in; a client that takes longer gives its place to others
_DROPPED = 4  # up to so many times the limit a body is read, if only to drop it
_BODY_READ = "tfod_zoo.body_read"  # in a request's scope
# The page is one file, and talks to where it came from.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}


def make_app(model: ServedModel, admission: Admission, max_body: int) -> FastAPI:
    """The application around a model.

    Args:
      model: warmed up.
      admission: what bounds and orders the work.
      max_body: bytes of a request's body, at most.
    """
    app = FastAPI(title=f"tfod_zoo: {model.name}", docs_url=None, redoc_url=None)  # those pages need a network
    page = (files("tfod_zoo.serving") / "page.html").read_bytes()
    metadata = model.metadata()

    async def answer(request: Request, work: Callable[[bytes], bytes]) -> Response:
        with admission.place():
            body = await _read_body(request, keep=max_body, most=_DROPPED * max_body)
            if body is None:
                raise Refusal(413, f"The body has more than {max_body} bytes; send less.")
            if not body:
                raise Refusal(400, "The body is empty; send what the address takes.")
            return Response(await admission.run(lambda: work(body)), media_type="application/json")

    def check_name(name: str, version: str = VERSION) -> None:
        if name != model.name:
            raise Refusal(404, f"There is no model {name[:80]!r} here; there is {model.name!r}.")
        if version != VERSION:
            raise Refusal(404, f"There is no version {version[:20]!r} of {model.name}; there is {VERSION}.")

    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return Response(page, media_type="text/html", headers=_PAGE_HEADERS)

    @app.post("/detect", summary="An image file as the body; its detections in pixels.")
    async def detect(request: Request) -> Response:
        min_score = _min_score(request.query_params.get("min_score", "0"))
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise Refusal(415, "The body is a form; send the file itself, as curl --data-binary @photo.jpg does.")
        return await answer(request, lambda body: model.detect_file(body, min_score))

    @app.get("/v1/models/{name}")
    @app.get("/v1/models/{name}/versions/{version}")
    async def status(name: str, version: str = VERSION) -> dict[str, Any]:
        check_name(name, version)
        return model.status()

    @app.get("/v1/models/{name}/metadata")
    @app.get("/v1/models/{name}/versions/{version}/metadata")
    async def describe(name: str, version: str = VERSION) -> dict[str, Any]:
        check_name(name, version)
        return metadata

    @app.post("/v1/models/{name}:predict")
    @app.post("/v1/models/{name}/versions/{version}:predict")
    async def predict(request: Request, name: str, version: str = VERSION) -> Response:
        check_name(name, version)
        return await answer(request, model.predict)

    @app.exception_handler(Refusal)
    async def refuse(request: Request, refusal: Refusal) -> Response:
        headers = {"Retry-After": str(refusal.retry_after)} if isinstance(refusal, Busy) else {}
        return await failure(request, refusal.status, refusal.sentence, headers)

    @app.exception_handler(HTTPException)
    async def no_such_address(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path[:80]} is no address of this server; GET /openapi.json lists them."
        return await failure(request, error.status_code, what, error.headers or {})

    @app.exception_handler(Exception)
    async def not_expected(request: Request, error: Exception) -> Response:
        return await failure(request, 500, "The server failed at this request; its log says why.", {})

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    async def failure(request: Request, status: int, sentence: str, headers: Mapping[str, str]) -> Response:
        """An error as TensorFlow Serving words it; the connection ends with it, as its body may not be at an end."""
        if not request.scope.get(_BODY_READ):
            with contextlib.suppress(Refusal, ClientDisconnect):
                await _read_body(request, keep=0, most=_DROPPED * max_body)
        return JSONResponse({"error": sentence}, status, {**headers, "Connection": "close"})

    return app


async def _read_body(request: Request, keep: int, most: int) -> bytes | None:
    """The request's body, or None when it has more than `keep` bytes.

    What is too large is read all the same, and dropped, up to `most` bytes: a client that is still sending would not
    see the answer.

    Raises:
      Refusal: 408 too slow.
    """
    request.scope[_BODY_READ] = True
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > most:
        return None

    async def read() -> bytes | None:
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > most:
                return None
            if size <= keep:
                parts.append(part)
            else:
                parts.clear()
        return b"".join(parts) if size <= keep else None

    try:
        return await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise Refusal(408, f"The body was not here after {BODY_SECONDS:g} s; send it faster.") from None


def _min_score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Refusal(400, f"min_score {text[:20]!r} is not a score; give one in 0..1.")
    return value

