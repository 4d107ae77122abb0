"""The demo's server answers its own page and nobody else, and says in a sentence what it cannot do."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp")
from aiohttp.test_utils import TestClient, TestServer

from disbench.core.prediction import Prediction
from disbench.demo.segmentation import Photos
from disbench.demo.server import NAME_HEADER, TOKEN_HEADER, Demo, application
from tests.toy_methods import Discs, DiscsSession
from tests.unit.demo.test_demo_segmentation import png

Client = Any


def talk(test: Callable[[Client, Demo], Awaitable[None]], method: Any = None, **more: Any) -> None:
    """Run a conversation with a demo of toy discs."""

    async def conversation() -> None:
        demo = Demo(method or Discs(candidates=3), "toy", "toy", "Toy <discs>", 0.5, Photos(), **more)
        async with TestClient(TestServer(application(demo), host="127.0.0.1")) as client:
            await test(client, demo)

    asyncio.run(conversation())


async def post(client: Client, demo: Demo, path: str, *, status: int = 200, **content: Any) -> Any:
    answer = await client.post(path, json=content, headers={TOKEN_HEADER: demo.token})
    assert answer.status == status, await answer.text()
    return await answer.json()


def test_the_page_and_its_policy() -> None:
    async def test(client: Client, demo: Demo) -> None:
        answer = await client.get("/")
        text, policy = await answer.text(), answer.headers["Content-Security-Policy"]
        nonce = re.search(r"'nonce-([^']+)'", policy)
        assert nonce is not None
        assert policy.startswith("default-src 'none'; ")
        assert text.count(f'nonce="{nonce[1]}"') == 3
        assert "Toy &lt;discs&gt;" in text
        assert demo.token in text
        assert not re.search(r"(src|href)=\"(?!data:)", text)
        assert not re.search(r"https?://", text)
        assert "style=" not in text
        assert not re.search(r"\son[a-z]+=", text)
        other = await client.get("/")
        assert nonce[1] not in other.headers["Content-Security-Policy"]
        for name in ("Cache-Control", "X-Content-Type-Options", "X-Frame-Options", "Cross-Origin-Resource-Policy"):
            assert name in answer.headers

    talk(test)


def test_nobody_else_is_answered() -> None:
    async def test(client: Client, demo: Demo) -> None:
        port = client.server.port
        own = {"Host": f"127.0.0.1:{port}"}
        for headers in (
            {"Host": f"evil.example:{port}"},  # DNS rebinding
            {"Host": "127.0.0.1"},
            {"Host": f"127.0.0.1.evil.example:{port}"},
            {**own, "Origin": "http://evil.example"},
            {**own, "Origin": f"http://127.0.0.1:{port + 1}"},
            {**own, "Origin": f"https://127.0.0.1:{port}"},
            {**own, "Sec-Fetch-Site": "cross-site"},
        ):
            for path in ("/", "/photos/0", "/photos/0/thumbnail"):
                answer = await client.get(path, headers=headers)
                assert answer.status == 403, (path, headers)
                assert demo.token not in await answer.text()
            answer = await client.post(
                "/segmentations", json={"photo": 0}, headers={**headers, TOKEN_HEADER: demo.token}
            )
            assert answer.status == 403
        for token in (
            {},
            {TOKEN_HEADER: ""},
            {TOKEN_HEADER: "x" + demo.token},
            {TOKEN_HEADER: "é".encode().decode("latin-1")},
        ):
            for path in ("/segmentations", "/photos", "/segmentations/x/click", "/segmentations/x/save"):
                answer = await client.post(path, json={"photo": 0}, headers=token)
                assert answer.status == 403
        assert not demo.segmentations
        assert len(demo.photos.all()) == 8
        for host in ("127.0.0.1", "localhost"):
            good = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}", "Sec-Fetch-Site": "same-origin"}
            answer = await client.post("/segmentations", json={"photo": 0}, headers={**good, TOKEN_HEADER: demo.token})
            assert answer.status == 200
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert (await client.options("/segmentations", headers={"Origin": "http://evil.example"})).status == 403

    talk(test)


def test_requests_that_are_none() -> None:
    async def test(client: Client, demo: Demo) -> None:
        state = await post(client, demo, "/segmentations", photo=0)
        segmentation = f"/segmentations/{state['segmentation']}"
        for path, content in (
            *(
                (f"{segmentation}/click", {"x": x, "y": 1, "positive": positive})
                for x, positive in ((1, None), (1.5, True), (True, True), (10**30, True), (-1, True), (1, False))
            ),
            (f"{segmentation}/choose", {"candidate": 0}),
            (f"{segmentation}/save", {"kind": "../x", "sample": "s", "user": "u"}),
            (f"{segmentation}/save-all", {"sample": "s", "user": "u"}),
            ("/segmentations/none/undo", {}),
            *(("/segmentations", {"photo": photo}) for photo in (99, "../../etc/passwd")),
        ):
            answer = await post(client, demo, path, status=400, **content)
            assert set(answer) == {"error"}
            assert "\n" not in answer["error"]
        headers = {TOKEN_HEADER: demo.token, "Content-Type": "application/json"}
        for body in (b"{", b"[" * 4000, b'"x"', b"{" + b" " * 5000 + b"}"):
            assert (await client.post("/segmentations", data=body, headers=headers)).status == 400
        assert (await client.post("/segmentations", data=b"photo=0", headers={TOKEN_HEADER: demo.token})).status == 400
        for path in ("/etc/passwd", "/photos/../../etc/passwd", "/photos/-1", "/photos/..%2f..%2fetc%2fpasswd"):
            answer = await client.get(path)
            assert answer.status == 404
            assert set(await answer.json()) == {"error"}
        assert (await client.get("/photos/77")).status == 400

    talk(test)


def test_uploads_over_the_wire() -> None:
    async def test(client: Client, demo: Demo) -> None:
        async def upload(name: str, content: bytes) -> tuple[int, Any]:
            answer = await client.post("/photos", data=content, headers={TOKEN_HEADER: demo.token, NAME_HEADER: name})
            return answer.status, await answer.json()

        status, facts = await upload("caf%C3%A9.png", png(30, 20))
        assert (status, facts["name"], facts["width"], facts["height"]) == (200, "café.png", 30, 20)
        assert (await client.get(f"/photos/{facts['number']}")).content_type == "image/png"
        for name, content, expected in (
            ("notes.txt", b"hello", 400),
            ("big.png", png(20_000, 10_000), 400),
            ("..%2F..%2Fx.png", png(4, 4), 400),
            ("heavy.png", b"0" * (2**25 + 10), 413),
        ):
            status, answer = await upload(name, content)
            assert status == expected, answer
            assert set(answer) == {"error"}
        assert len(demo.photos.all()) == 9

    talk(test)


class Slow(Discs):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let, self.at_once, self.most = threading.Event(), 0, 0

    def open(self, image: np.ndarray) -> SlowSession:
        return SlowSession(self, image)


class SlowSession(DiscsSession):
    def predict(self, clicks: Any) -> Prediction:
        self.method.at_once += 1
        self.method.most = max(self.method.most, self.method.at_once)
        assert self.method.let.wait(20)
        self.method.at_once -= 1
        return super().predict(clicks)


def test_a_slow_method_holds_nobody_up_and_is_asked_one_by_one() -> None:
    method = Slow()

    async def test(client: Client, demo: Demo) -> None:
        segmentations = [(await post(client, demo, "/segmentations", photo=n))["segmentation"] for n in (0, 2)]
        clicks = [
            asyncio.create_task(post(client, demo, f"/segmentations/{segmentation}/click", x=5 + n, y=5, positive=True))
            for n in range(4)
            for segmentation in segmentations
        ]
        await asyncio.sleep(0.1)
        for path in ("/", "/photos/1", "/photos/1/thumbnail"):
            assert (await client.get(path)).status == 200
        assert not any(click.done() for click in clicks)
        method.let.set()
        states = await asyncio.gather(*clicks)
        assert max(len(state["clicks"]) for state in states) == 4
        assert method.most == 1

    talk(test, method)


def test_too_many_wait() -> None:
    method = Slow()

    async def test(client: Client, demo: Demo) -> None:
        segmentation = (await post(client, demo, "/segmentations", photo=0))["segmentation"]
        asked = [
            asyncio.create_task(
                client.post(
                    f"/segmentations/{segmentation}/click",
                    json={"x": n, "y": 5, "positive": True},
                    headers={TOKEN_HEADER: demo.token},
                )
            )
            for n in range(25)
        ]
        await asyncio.sleep(0.3)
        method.let.set()
        statuses = [(await one).status for one in asked]
        assert statuses.count(200) in (16, 17)
        assert statuses.count(400) == 25 - statuses.count(200)

    talk(test, method)
