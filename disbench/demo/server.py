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
from disbench.core.painting import overlay_png, png
from disbench.core.prediction import Method, RgbImage
from disbench.demo.work import (
    MethodFailedError,
    Picture,
    Pictures,
    Work,
    save_into,
    saved,
    thumbnail_png,
    too_many_bytes,
)
from disbench.demo.work import command as predict_command

HOST = "127.0.0.1"
TOKEN, NAME = "X-Disbench-Token", "X-Disbench-Name"
"""Request headers: the token, and the URL-encoded name of an uploaded photo."""
_MOST_WORKS = 12
_MOST_WAITING = 16
"""Maximum number of queued method calls."""
_MOST_JSON = 4096
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_CHANGES: dict[str, tuple[dict[str, type], Callable[..., object]]] = {
    "state": ({}, lambda work: None),
    "click": ({"x": int, "y": int, "positive": bool}, lambda work, **click: work.click(Click(**click))),
    "choose": ({"candidate": int}, lambda work, candidate: work.choose(candidate)),
    "undo": ({}, Work.undo),
    "reset": ({}, Work.reset),
}
"""Actions on a work: the keys and types of the request's JSON, and the function to call."""
_TYPES = {"mask.png": "image/png", "mask.json": "application/json", "clicks.parquet": "application/octet-stream"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Result = TypeVar("Result")


class OneAtATime:
    """Runs calls sequentially in a daemon thread."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue(_MOST_WAITING)
        threading.Thread(target=self._work, name="the method", daemon=True).start()

    async def do(self, call: Callable[[], Result]) -> Result:
        """Queue a call and return its result; `InputError` if the queue is full."""
        future: Future[Result] = Future()
        try:
            self._waiting.put_nowait((call, future))
        except queue.Full:
            raise InputError("too many clicks are waiting for the method; wait for its answer first") from None
        return await asyncio.wrap_future(future)

    def _work(self) -> None:
        while True:
            call, future = self._waiting.get()
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
        asked: the method as typed; `name` and `title` are its short and full names.
        out: folder for saved masks and clicks; None: the browser downloads them.
        works: photos being segmented, by id.
    """

    method: Method
    asked: str
    name: str
    title: str
    threshold: float
    pictures: Pictures
    overrides: Sequence[str] = ()
    out: Path | None = None
    token: str = field(default_factory=partial(secrets.token_urlsafe, 24))
    works: OrderedDict[str, tuple[Picture, Work]] = field(default_factory=OrderedDict)
    turns: OneAtATime = field(default_factory=OneAtATime)

    def begin(self, picture: Picture, pixels: RgbImage) -> str:
        """Start work on a photo and return the work's id; drops the least recently used if there are too many."""
        name = secrets.token_urlsafe(9)
        self.works[name] = picture, Work(self.method, pixels, self.threshold)
        while len(self.works) > _MOST_WORKS:
            self.works.popitem(last=False)
        return name

    def work(self, name: str) -> tuple[Picture, Work]:
        """The photo and work with this id; `InputError` if there is none."""
        if name not in self.works:
            raise InputError("this work was dropped; choose the photo again")
        self.works.move_to_end(name)
        return self.works[name]

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
            "photos": [_facts(picture) for picture in self.pictures.all()],
            "out": out,
            "mostBytes": MAX_UPLOAD_BYTES,
        }
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        return environment.from_string(page).render(
            nonce=nonce, title=self.title, config=config, out=out, style=Markup(style), script=Markup(script)
        )

    async def _picture(self, request: web.Request, made: Callable[[RgbImage], bytes]) -> web.Response:
        number = int(request.match_info["number"])
        content = await asyncio.to_thread(lambda: made(self.pictures.pixels(number)))
        return web.Response(body=content, content_type="image/png")

    async def _upload(self, request: web.Request) -> web.Response:
        name = unquote(request.headers.get(NAME, ""))
        picture = await asyncio.to_thread(self.pictures.add_upload, name, await request.read())
        return web.json_response(_facts(picture))

    async def _open(self, request: web.Request) -> web.Response:
        number = (await _asked(request, photo=int))["photo"]
        picture = self.pictures.find(number)
        name = self.begin(picture, await asyncio.to_thread(self.pictures.pixels, number))
        return await self._told(name)

    async def _change(self, request: web.Request) -> web.Response:
        kinds, change = _CHANGES[request.match_info["verb"]]
        asked = await _asked(request, **kinds) if kinds else {}
        return await self._told(request.match_info["work"], lambda work: change(work, **asked))

    async def _save(self, request: web.Request) -> web.Response:
        asked = await _asked(request, kind=str, sample=str, user=str)
        _, work = self.work(request.match_info["work"])
        made = partial(saved, asked["kind"], work, asked["sample"], asked["user"])
        return web.Response(body=await self.turns.do(made), content_type=_TYPES.get(asked["kind"], "text/plain"))

    async def _save_all(self, request: web.Request) -> web.Response:
        asked = await _asked(request, sample=str, user=str)
        if self.out is None:
            raise InputError("the demo was started without --out, so it writes no files; save single files instead")
        picture, work = self.work(request.match_info["work"])
        made = partial(save_into, self.out, picture, work, asked["sample"], asked["user"])
        return web.json_response({"folder": str(self.out), "files": await self.turns.do(made)})

    async def _told(self, name: str, change: Callable[[Work], object] = lambda _: None) -> web.Response:
        """Apply a change to a work in the method's thread and return the new state."""
        picture, work = self.work(name)

        def turn() -> dict[str, Any]:
            change(work)
            return self._state(picture, work)

        return web.json_response({"work": name, **await self.turns.do(turn)})

    def _state(self, picture: Picture, work: Work) -> dict[str, Any]:
        """The state of a work as JSON for the page."""
        height, width = work.size
        found, candidates = work.found, []
        if found and work.choosing:
            for number, mask in enumerate(found.masks):
                score = None if found.scores is None else found.scores[number]
                overlay = _data(overlay_png(mask, number))
                candidates.append({"score": score, "pixels": int(mask.sum()), "overlay": overlay})
        return {
            "photo": picture.number,
            "height": height,
            "width": width,
            "clicks": [list(click) for click in work.clicks],
            "kept": work.kept,
            "chosen": work.chosen,
            "pixels": int(work.mask.sum()),
            "overlay": _data(overlay_png(work.mask, work.meant)) if found else "",
            "candidates": candidates,
            "command": predict_command(picture, work, self.asked, self.overrides) if found else "",
        }


def application(demo: Demo) -> web.Application:
    """The aiohttp application of a demo."""
    app = web.Application(middlewares=[_answered, guard_of(demo.token)], client_max_size=MAX_UPLOAD_BYTES + 1)
    app.router.add_get("/", demo._page)
    plain = partial(png, compression=1)  # without metadata, which may contain an orientation
    app.router.add_get(r"/photos/{number:\d{1,9}}", partial(demo._picture, made=plain))
    app.router.add_get(r"/photos/{number:\d{1,9}}/thumbnail", partial(demo._picture, made=thumbnail_png))
    app.router.add_post("/photos", demo._upload)
    app.router.add_post("/works", demo._open)
    app.router.add_post(f"/works/{{work}}/{{verb:{'|'.join(_CHANGES)}}}", demo._change)
    app.router.add_post("/works/{work}/save", demo._save)
    app.router.add_post("/works/{work}/save-all", demo._save_all)
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
            f"{method} gets {BUDGETS[spec.budget].words} at once, so there is nothing to refine; use disbench predict"
        )
    pictures = Pictures(images, exif)
    title = str(spec.card.get("title", spec.name))
    shown = Demo(spec.build(), method, spec.name, title, spec.threshold, pictures, overrides, out)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(shown, port, ready))


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
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add the security headers to every response and turn errors into one-sentence messages."""
    try:
        response = await handler(request)
    except web.HTTPRequestEntityTooLarge:
        response = _error(413, too_many_bytes(unquote(request.headers.get(NAME, "the photo"))))
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


def guard_of(token: str) -> Any:
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
        if request.method != "GET" and not hmac.compare_digest(request.headers.get(TOKEN, "").encode(), token.encode()):
            return _error(403, "the demo was restarted since this page was loaded; reload it")
        return await handler(request)

    return guard


def _facts(picture: Picture) -> dict[str, Any]:
    names = ("number", "name", "stem", "height", "width", "samples")
    return {name: getattr(picture, name) for name in names}


def _data(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": " ".join(sentence.split())}, status=status, headers=_HEADERS)


async def _asked(request: web.Request, **kinds: type) -> dict[str, Any]:
    """Parse a request's JSON object, with exactly these keys and types; `InputError` otherwise."""
    if request.content_type != "application/json" or (request.content_length or 0) > _MOST_JSON:
        raise InputError(f"the request must be JSON of at most {_MOST_JSON} bytes")
    try:
        found = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise InputError("the request is not JSON") from None
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != kinds:
        wanted = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
        raise InputError(f"the request must have exactly these keys: {wanted}")
    return found
