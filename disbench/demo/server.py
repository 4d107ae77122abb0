"""The demo's server on 127.0.0.1, which answers only its own page.

Other sites can make a browser send requests to 127.0.0.1, even under their own name (DNS rebinding). So requests must
have this host and port and the page's origin and, to change anything, the page's token. No request data is used as a
path.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import queue
import secrets
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from aiohttp import web

from disbench.baselines.cards import method_spec
from disbench.core.choices import Exif
from disbench.core.click_policies import BUDGETS
from disbench.core.clicks import Click
from disbench.core.errors import InputError
from disbench.core.limits import MAX_UPLOAD_BYTES
from disbench.core.painting import encode_png, overlay_png
from disbench.core.prediction import Method, RgbImage
from disbench.demo.segmentation import (
    MethodFailedError,
    Photo,
    Photos,
    Segmentation,
    encode_file,
    predict_command,
    save_files,
    thumbnail_png,
    too_many_bytes,
)

HOST = "127.0.0.1"
TOKEN_HEADER, NAME_HEADER = "X-Disbench-Token", "X-Disbench-Name"
"""Request headers: the token, and the URL-encoded name of an uploaded photo."""
_MAX_SEGMENTATIONS, _MAX_QUEUED_CALLS, _MAX_JSON_BYTES = 12, 16, 4096
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_ACTIONS: dict[str, tuple[dict[str, type], Callable[..., object]]] = {
    "state": ({}, lambda segmentation: None),
    "click": ({"x": int, "y": int, "positive": bool}, lambda segmentation, **click: segmentation.click(Click(**click))),
    "choose": ({"candidate": int}, Segmentation.choose),
    "undo": ({}, Segmentation.undo),
    "reset": ({}, Segmentation.reset),
}
"""Actions on a segmentation: the keys and types of the request's JSON, and the function to call."""
_CONTENT_TYPES = {
    "mask.png": "image/png",
    "mask.json": "application/json",
    "clicks.parquet": "application/octet-stream",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Result = TypeVar("Result")


class MethodThread:
    """Runs calls sequentially in a daemon thread."""

    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue(_MAX_QUEUED_CALLS)
        threading.Thread(target=self._run_calls, name="the method", daemon=True).start()

    async def run(self, call: Callable[[], Result]) -> Result:
        """Queue a call and return its result; `InputError` if the queue is full."""
        future: Future[Result] = Future()
        try:
            self._calls.put_nowait((call, future))
        except queue.Full:
            raise InputError("too many clicks are waiting for the method; wait for its answer first") from None
        return await asyncio.wrap_future(future)

    def _run_calls(self) -> None:
        while True:
            call, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # even SystemExit must not end the thread
                future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))


@dataclass
class Demo:
    """State and request handlers of the server.

    Attributes:
        method_argument: the method as typed; `name` and `title` are its short and full names.
        out: folder for saved masks and clicks; None: the browser downloads them.
        segmentations: photos being segmented, by id; the least recently used are dropped if there are too many.
    """

    method: Method
    method_argument: str
    name: str
    title: str
    threshold: float
    photos: Photos
    overrides: Sequence[str] = ()
    out: Path | None = None
    token: str = field(default_factory=partial(secrets.token_urlsafe, 24))
    segmentations: OrderedDict[str, tuple[Photo, Segmentation]] = field(default_factory=OrderedDict)
    method_thread: MethodThread = field(default_factory=MethodThread)

    def find(self, name: str) -> tuple[Photo, Segmentation]:
        """The photo and segmentation with this id; `InputError` if there is none."""
        if name not in self.segmentations:
            raise InputError("this work was dropped; choose the photo again")
        self.segmentations.move_to_end(name)
        return self.segmentations[name]

    async def _page(self, _: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data: blob:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {"Content-Security-Policy": policy}
        return web.Response(text=self.html(nonce), content_type="text/html", headers=headers)

    def html(self, nonce: str) -> str:
        """The page with its style, script and configuration; `nonce` is for the Content-Security-Policy."""
        import jinja2  # noqa: PLC0415
        from markupsafe import Markup  # noqa: PLC0415

        files = resources.files("disbench.demo")
        page, style, script = (
            files.joinpath(f"page.{ending}").read_text(encoding="utf-8") for ending in ("html.jinja", "css", "js")
        )
        out = None if self.out is None else str(self.out)
        config = {
            "token": self.token,
            "method": self.name,
            "photos": [_photo_json(photo) for photo in self.photos.all()],
            "out": out,
            "maxUploadBytes": MAX_UPLOAD_BYTES,
        }
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        return environment.from_string(page).render(
            nonce=nonce, title=self.title, config=config, out=out, style=Markup(style), script=Markup(script)
        )

    async def _photo(self, request: web.Request, encode: Callable[[RgbImage], bytes]) -> web.Response:
        number = int(request.match_info["number"])
        content = await asyncio.to_thread(lambda: encode(self.photos.pixels(number)))
        return web.Response(body=content, content_type="image/png")

    async def _upload(self, request: web.Request) -> web.Response:
        name = unquote(request.headers.get(NAME_HEADER, ""))
        photo = await asyncio.to_thread(self.photos.add_upload, name, await request.read())
        return web.json_response(_photo_json(photo))

    async def _open(self, request: web.Request) -> web.Response:
        number = (await _parse_json(request, photo=int))["photo"]
        photo = self.photos.find(number)
        pixels = await asyncio.to_thread(self.photos.pixels, number)
        name = secrets.token_urlsafe(9)
        self.segmentations[name] = photo, Segmentation(self.method, pixels, self.threshold)
        if len(self.segmentations) > _MAX_SEGMENTATIONS:
            self.segmentations.popitem(last=False)
        return await self._apply(name)

    async def _change(self, request: web.Request) -> web.Response:
        types, action = _ACTIONS[request.match_info["action"]]
        arguments = await _parse_json(request, **types) if types else {}
        return await self._apply(request.match_info["id"], partial(action, **arguments))

    async def _save(self, request: web.Request) -> web.Response:
        fields = await _parse_json(request, kind=str, sample=str, user=str)
        _, segmentation = self.find(request.match_info["id"])
        content = await self.method_thread.run(partial(encode_file, segmentation=segmentation, **fields))
        return web.Response(body=content, content_type=_CONTENT_TYPES.get(fields["kind"], "text/plain"))

    async def _save_all(self, request: web.Request) -> web.Response:
        fields = await _parse_json(request, sample=str, user=str)
        if self.out is None:
            raise InputError("the demo was started without --out, so it writes no files; save single files instead")
        photo, segmentation = self.find(request.match_info["id"])
        files = await self.method_thread.run(partial(save_files, self.out, photo, segmentation, **fields))
        return web.json_response({"folder": str(self.out), "files": files})

    async def _apply(self, name: str, change: Callable[[Segmentation], object] = lambda _: None) -> web.Response:
        """Apply a change to a segmentation in the method's thread and return the new state."""
        photo, segmentation = self.find(name)

        def apply() -> dict[str, Any]:
            change(segmentation)
            return self._state(photo, segmentation)

        return web.json_response({"segmentation": name, **await self.method_thread.run(apply)})

    def _state(self, photo: Photo, segmentation: Segmentation) -> dict[str, Any]:
        """The state of a segmentation as JSON for the page."""
        height, width = segmentation.size
        offered, candidates = segmentation.candidates, []
        if offered and segmentation.can_choose:
            for number, mask in enumerate(offered.masks):
                score = None if offered.scores is None else offered.scores[number]
                overlay = _data_url(overlay_png(mask, number))
                candidates.append({"score": score, "pixels": int(mask.sum()), "overlay": overlay})
        return {
            "photo": photo.number,
            "height": height,
            "width": width,
            "clicks": [list(click) for click in segmentation.clicks],
            "kept": segmentation.kept,
            "chosen": segmentation.chosen,
            "pixels": int(segmentation.mask.sum()),
            "overlay": _data_url(overlay_png(segmentation.mask, segmentation.first_kept)) if offered else "",
            "candidates": candidates,
            "command": predict_command(photo, segmentation, self.method_argument, self.overrides) if offered else "",
        }


def application(demo: Demo) -> web.Application:
    """The aiohttp application of a demo."""
    app = web.Application(middlewares=[_respond, request_guard(demo.token)], client_max_size=MAX_UPLOAD_BYTES + 1)
    app.router.add_get("/", demo._page)
    plain = partial(encode_png, compression=1)  # without metadata, which may contain an orientation
    app.router.add_get(r"/photos/{number:\d{1,9}}", partial(demo._photo, encode=plain))
    app.router.add_get(r"/photos/{number:\d{1,9}}/thumbnail", partial(demo._photo, encode=thumbnail_png))
    app.router.add_post("/photos", demo._upload)
    app.router.add_post("/segmentations", demo._open)
    app.router.add_post(f"/segmentations/{{id}}/{{action:{'|'.join(_ACTIONS)}}}", demo._change)
    app.router.add_post("/segmentations/{id}/save", demo._save)
    app.router.add_post("/segmentations/{id}/save-all", demo._save_all)
    return app


def demo(
    images: Sequence[Path],
    method: str,
    overrides: Sequence[str] = (),
    *,
    port: int = 0,
    out: Path | None = None,
    ready: Callable[[str], None] = print,
    exif: Exif = "ignore",
) -> None:
    """Serve the demo until the process is interrupted.

    Args:
        images: photos to choose from; if empty, the embedded ones.
        method: name or path of a card, or a class (`disbench.baselines.cards.method_spec`).
        overrides: options of the method, each `option=value`.
        port: port on 127.0.0.1; 0 picks a free one.
        out: folder for saved masks and clicks; None: the browser downloads them.
        ready: called with the page's URL once it is served.
        exif: use the photos as stored, or rotated by their EXIF orientation.

    Raises:
        InputError: an unreadable image, an unknown method, or a port in use.
    """
    spec = method_spec(method, overrides)
    if spec.budget:
        raise InputError(
            f"{method} gets {BUDGETS[spec.budget].title} at once, so there is nothing to refine; use disbench predict"
        )
    title, photos = str(spec.card.get("title", spec.name)), Photos(images, exif)
    state = Demo(spec.build(), method, spec.name, title, spec.threshold, photos, overrides, out)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(state, port, ready))


async def serve(demo: Demo, port: int, ready: Callable[[str], None]) -> None:
    """Serve on a port (0: a free one) until cancelled; calls `ready` with the page's URL."""
    runner = web.AppRunner(application(demo), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            raise InputError(f"port {port} is not available ({error.strerror}); choose another with --port") from error
        ready(f"http://{HOST}:{runner.addresses[0][1]}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


@web.middleware
async def _respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add the security headers to every response and turn errors into one-sentence messages."""
    try:
        response = await handler(request)
    except web.HTTPRequestEntityTooLarge:
        response = _error(413, too_many_bytes(unquote(request.headers.get(NAME_HEADER, "the photo"))))
    except web.HTTPException as error:
        response = _error(error.status, f"{error.reason}: the page asked for something that does not exist")
    except InputError as error:
        response = _error(400, str(error))
    except MethodFailedError as error:
        response = _error(500, str(error))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        response = _error(500, f"the demo failed ({type(error).__name__}); see its terminal for details")
    response.headers.update(_HEADERS)
    return response


def request_guard(token: str) -> Any:
    """Middleware that rejects requests not made by the page itself."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
        if request.headers.getall("Host", []) not in ([f"{HOST}:{port}"], [f"localhost:{port}"]):
            return _error(403, f"unknown host name; open http://{HOST}:{port}/")
        own = f"http://{request.headers['Host']}"
        site = request.headers.get("Sec-Fetch-Site", "none")
        if request.headers.get("Origin", own) != own or site not in ("none", "same-origin"):
            return _error(403, "only requests from the demo's own page are allowed")
        if request.method != "GET" and not hmac.compare_digest(
            request.headers.get(TOKEN_HEADER, "").encode(), token.encode()
        ):
            return _error(403, "the demo was restarted since this page was loaded; reload it")
        return await handler(request)

    return guard


def _photo_json(photo: Photo) -> dict[str, Any]:
    names = ("number", "name", "stem", "height", "width", "samples")
    return {name: getattr(photo, name) for name in names}


def _data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": " ".join(sentence.split())}, status=status, headers=_HEADERS)


async def _parse_json(request: web.Request, **types: type) -> dict[str, Any]:
    """Parse a request's JSON object, with exactly these keys and types; `InputError` otherwise."""
    if request.content_type != "application/json" or (request.content_length or 0) > _MAX_JSON_BYTES:
        raise InputError(f"the request must be JSON of at most {_MAX_JSON_BYTES} bytes")
    try:
        content = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON") from None
    if not isinstance(content, dict) or {name: type(value) for name, value in content.items()} != types:
        keys = ", ".join(f"{name} ({type_.__name__})" for name, type_ in types.items())
        raise InputError(f"the request must have exactly these keys: {keys}")
    return content
