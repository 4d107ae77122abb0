"""Downloads from a server that misbehaves in every way that servers do; all of it on 127.0.0.1."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
import types
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request

import numpy as np
import pytest
from PIL import Image

from disbench.core.errors import InputError
from disbench.datasets import fetch as fetching
from disbench.datasets.cards import open_dataset
from disbench.datasets.fetch import check_links, fetch
from disbench.io.download import ATTEMPTS, _Redirects, download
from tests.archives import archive_bytes
from tests.refusals import refuses

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Get = Callable[..., bytes]
Options = dict[str, Any]


class Server:
    """What is served, how, and what was asked for (path and range of each request).

    `cuts` are the bytes after which the next answers break off, `statuses` what the next answers are instead.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/a.bin": CONTENT}
        self.redirects: dict[str, str] = {}
        self.etag: str | None = '"1"'
        self.ranges = self.if_range = self.length = True
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.seen: list[tuple[str, str | None]] = []
        self.methods: list[str] = []
        self.no_head = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked, content = request.headers.get("Range"), self.files.get(request.path, b"")
        self.seen.append((request.path, asked))
        self.methods.append(request.command)
        headers: dict[str, str | None] = {"ETag": self.etag}
        status, start = 200, 0
        if request.command == "HEAD" and self.no_head:
            status = 405
        elif request.path in self.redirects:
            status, headers["Location"] = 302, self.redirects[request.path]
        elif self.statuses or request.path not in self.files:
            status = self.statuses.pop(0) if self.statuses else 404
        elif asked and self.ranges and (not self.if_range or request.headers.get("If-Range") in (None, self.etag)):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            status = 206 if start < len(content) else 416
            place = f"{start}-{len(content) - 1}" if status == 206 else "*"
            headers["Content-Range"] = f"bytes {place}/{len(content)}"
        body = content[start:] if status in (200, 206) else b""
        if self.length:
            headers["Content-Length"] = str(len(body))
        request.send_response(status)
        for name, value in headers.items():
            if value is not None:
                request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Server()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def get(server: Server, tmp_path: Path, pauses: list[float]) -> Get:
    """Downloads a file of the server into an empty folder; gives its bytes."""

    def get(name: str = "a.bin", **options: Any) -> bytes:
        path = tmp_path / name
        digest = download(f"{server.url}/{name}", path, pause=pauses.append, **options)
        content = path.read_bytes()
        assert digest == hashlib.sha256(content).hexdigest()
        assert [p.name for p in tmp_path.iterdir()] == [name]
        return content

    return get


class TestDownload:
    def test_what_is_there_is_not_fetched(self, get: Get, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        for _ in range(2):
            assert get(sha256=SHA256.upper(), size=len(CONTENT)) == CONTENT
        assert (server.seen, pauses) == ([("/a.bin", None)], [])
        (tmp_path / "a.bin").write_bytes(b"something else")
        assert get(sha256=SHA256) == CONTENT

    @pytest.mark.parametrize(
        ("how", "cuts", "asked"),
        [
            ({}, [100_000, 50_000], [None, "bytes=100000-", "bytes=150000-"]),
            ({}, [20_000] * 12, [None, *(f"bytes={20_000 * n}-" for n in range(1, 13))]),
            ({"ranges": False}, [100_000], [None, "bytes=100000-"]),
            ({"etag": None}, [100_000], [None, None]),
            ({"length": False}, [], [None]),
        ],
        ids=["resumes", "resumes while something arrives", "no ranges", "no versions", "no length"],
    )
    def test_a_transfer_that_breaks_off_goes_on(
        self, get: Get, server: Server, pauses: list[float], how: Options, cuts: list[int], asked: list[Any]
    ) -> None:
        vars(server).update(how, cuts=list(cuts))
        assert get(sha256=SHA256) == CONTENT
        assert [each for _, each in server.seen] == asked
        assert len(pauses) == len(cuts)

    def test_resumed_by_a_later_call(self, get: Get, server: Server, tmp_path: Path) -> None:
        server.cuts = [100_000, *[0] * ATTEMPTS]
        refuses(r"a\.bin: .* 100000 of 300000 bytes", get)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin.part", "a.bin.part.json"]
        server.seen.clear()
        assert get(sha256=SHA256) == CONTENT
        assert server.seen == [("/a.bin", "bytes=100000-")]

    @pytest.mark.parametrize(
        ("part", "note", "asked"),
        [
            (CONTENT, '["URL/a.bin", "\\"1\\""]', f"bytes={len(CONTENT)}-"),  # killed after the last byte
            *((b"x" * 1000, note, None) for note in (None, "{", '["http://elsewhere", "1"]')),
        ],
    )
    def test_a_part_is_continued_where_its_origin_is_known(
        self, get: Get, server: Server, tmp_path: Path, part: bytes, note: str | None, asked: str | None
    ) -> None:
        (tmp_path / "a.bin.part").write_bytes(part)
        if note is not None:
            (tmp_path / "a.bin.part.json").write_text(note.replace("URL", server.url))
        assert get() == CONTENT
        assert server.seen == [("/a.bin", asked)]

    @pytest.mark.parametrize("if_range", [True, False])
    @pytest.mark.parametrize("size", [150_000, 300_000, 400_000])
    def test_a_file_that_changed_meanwhile(self, get: Get, server: Server, if_range: bool, size: int) -> None:
        server.cuts = [200_000, *[0] * ATTEMPTS]
        refuses("", get)
        other = np.random.default_rng(1).bytes(size)
        server.files["/a.bin"], server.etag, server.if_range = other, '"2"', if_range
        assert get() == other

    @pytest.mark.parametrize(
        ("how", "options", "named"),
        [
            ({}, {"sha256": "00"}, SHA256),
            ({}, {"size": 5}, "has 5"),
            ({"length": False, "cuts": [1000]}, {"size": len(CONTENT)}, "1000 bytes arrived"),
        ],
    )
    def test_a_wrong_hash_or_size_leaves_nothing(
        self, get: Get, server: Server, tmp_path: Path, how: Options, options: Options, named: str
    ) -> None:
        vars(server).update(how)
        refuses(named, get, **options)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_answers_that_stay(self, get: Get, server: Server, status: int) -> None:
        server.statuses = [status]
        refuses(rf"a\.bin: .*{status} ", get)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_answers_that_pass(self, get: Get, server: Server, pauses: list[float], status: int) -> None:
        server.statuses = [status] * (ATTEMPTS - 1)
        assert get() == CONTENT
        assert pauses == [2.0, 4.0, 8.0, 16.0]
        server.statuses = [status] * ATTEMPTS
        refuses(rf"b\.bin: .*{status} ", get, "b.bin")

    @pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "/b.bin", "", "/etc/passwd"])
    def test_redirects_and_other_kinds_of_addresses(self, get: Get, server: Server, tmp_path: Path, to: str) -> None:
        server.redirects = {"/b.bin": to}
        refuses("", get, "b.bin")
        refuses("", download, to, tmp_path / "x")
        assert not (tmp_path / "b.bin").exists()
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize("url", ["http://[", "http://a\nb/", f"http://{'a' * 300}/"])
    def test_addresses_that_are_none(self, tmp_path: Path, url: str) -> None:
        refuses("", download, url, tmp_path / "x", pause=lambda seconds: None)

    def test_redirects_never_leave_https(self) -> None:
        request, handler = Request("https://127.0.0.1/a"), _Redirects()
        followed = handler.redirect_request(request, None, 302, "", {}, "https://127.0.0.1/b")
        assert followed is not None
        assert followed.full_url == "https://127.0.0.1/b"
        refuses("http://127", handler.redirect_request, request, None, 302, "", {}, "http://127.0.0.1/b")


def dataset_zip(prefix: str = "", shade: int = 9, names: tuple[str, str] = ("img", "gt")) -> bytes:
    """A dataset of two images, beside what nobody wants."""
    content = {"__MACOSX/img/._a.png": b"", "__MACOSX/gt/._a.png": b"", f"{prefix}readme.txt": b"not wanted"}
    for part, pixels in zip(names, (np.full((3, 4, 3), shade), np.eye(3, 4) * 255), strict=True):
        data = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
        content |= {f"{prefix}{part}/{stem}.png": data.getvalue() for stem in "ab"}
    return archive_bytes("zip", content.items())


class TestFetch:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        return tmp_path / "data"

    @pytest.fixture
    def card(self, server: Server, tmp_path: Path) -> Path:
        server.files["/d.zip"] = dataset_zip("deep/inside/")
        path = tmp_path / "mine.toml"
        self.write(path, server)
        return path

    @staticmethod
    def write(path: Path, server: Server, sha256: str | None = None, more: str = "") -> None:
        known = hashlib.sha256(server.files["/d.zip"]).hexdigest() if sha256 is None else sha256
        path.write_text(
            f"""
title = "Mine"
loader = "pairs"
folder = "mine"
marker = ["img", "gt"]
options = {{ images.default = "img", masks.default = "gt", rule.default = "any-channel" }}
[[files]]
url = "{server.url}/d.zip"
file = "d.zip"
holds = ["img", "gt"]
sha256 = "{known}"
{more}
"""
        )

    @staticmethod
    def tree(data: Path) -> list[str]:
        return sorted(p.relative_to(data).as_posix() for p in data.rglob("*") if p.is_file())

    FILES = ("mine/gt/a.png", "mine/gt/b.png", "mine/img/a.png", "mine/img/b.png")

    def test_fetched_unpacked_and_opened(self, card: Path, data: Path, server: Server) -> None:
        lines = list(fetch(str(card), data))
        assert self.tree(data) == list(self.FILES)
        assert [p.name for p in data.iterdir()] == ["mine"]
        assert list(open_dataset(str(card), data).ids) == ["a", "b"]
        assert lines[0] == f"d.zip: from {server.url}/d.zip"
        assert lines[1].endswith("(as on the card)")
        assert lines[2] == f"d.zip: img, gt in {data}/mine"
        assert list(fetch(str(card), data)) == ["d.zip: what it holds is here already"]
        assert len(server.seen) == 1

    def test_several_files_one_of_them_no_archive(self, card: Path, data: Path, server: Server) -> None:
        server.files["/list.txt"] = b"a\n"
        more = f"""
[[files]]
url = "{server.url}/list.txt"
file = "lists/val.txt"
to = "more"
unpack = false
sha256 = "{hashlib.sha256(server.files["/list.txt"]).hexdigest()}"
"""
        self.write(card, server, more=more)
        list(fetch(str(card), data))
        assert self.tree(data) == [*self.FILES, "mine/more/lists/val.txt"]
        assert (data / "mine/more/lists/val.txt").read_bytes() == b"a\n"

    def test_killed_unpacking(self, card: Path, data: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(archive: Path, folder: Path) -> None:
            (folder / "img").mkdir()
            (folder / "img" / "a.png").write_bytes(b"half")
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(fetching, "unpack", interrupted)
            with pytest.raises(KeyboardInterrupt):
                list(fetch(str(card), data))
        assert self.tree(data) == [".downloads/mine/d.zip"]
        killed = data / "mine" / ".unpacking-d.zip"  # as a kill, which cleans nothing up, would leave it
        killed.mkdir(parents=True)
        (killed / "img").write_bytes(b"half")
        list(fetch(str(card), data))
        assert self.tree(data) == list(self.FILES)
        assert len(server.seen) == 1

    def test_existing(self, card: Path, data: Path, server: Server) -> None:
        list(fetch(str(card), data))
        old = (data / "mine/img/a.png").read_bytes()
        (data / "mine" / "img" / "own.png").write_bytes(old)
        (data / "mine" / "notes.txt").write_text("mine")
        server.files["/d.zip"] = dataset_zip(shade=200)
        self.write(card, server)
        refuses("mine/img: already exists", lambda: list(fetch(str(card), data, existing="fail")))
        list(fetch(str(card), data))
        assert (data / "mine/img/a.png").read_bytes() == old
        list(fetch(str(card), data, existing="overwrite"))
        assert (data / "mine/img/a.png").read_bytes() != old
        assert self.tree(data) == [*self.FILES, "mine/notes.txt"]

    def test_failed_overwriting(self, card: Path, data: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        list(fetch(str(card), data))
        old = {path: (data / path).read_bytes() for path in self.FILES}
        server.files["/d.zip"] = dataset_zip("new/", shade=200)
        self.write(card, server)
        rename = Path.rename

        def new_fails(self: Path, target: Path) -> Path:
            if self.parent.name == "staged" and target == data / "mine/img":
                raise OSError(28, "No space left on device")
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", new_fails)
            with pytest.raises(OSError, match="No space"):
                list(fetch(str(card), data, existing="overwrite"))
        assert {path: (data / path).read_bytes() for path in self.FILES} == old

    def test_what_has_no_hash_no_address_or_no_place(self, card: Path, data: Path, server: Server) -> None:
        self.write(card, server, sha256="")
        refuses(r"no SHA-256 .*d\.zip.*--no-hash", lambda: list(fetch(str(card), data)))
        assert not server.seen
        refuses("davis-585: ", lambda: list(fetch("davis-585", data)))
        refuses("set it with --data", lambda: list(fetch(str(card), None)))
        refuses("unknown dataset 'grabcat'", lambda: list(fetch("grabcat", data)))


class TestAddresses:
    """Several addresses of a file: tried in order, and the content decides where the card has its hash."""

    @pytest.fixture
    def data(self, server: Server, tmp_path: Path) -> Path:
        renamed = dataset_zip("release/", names=("images", "masks"))
        server.files |= {"/d.zip": dataset_zip(), "/renamed.zip": renamed, "/other.zip": dataset_zip(shade=99)}
        return tmp_path / "data"

    def card(self, server: Server, tmp_path: Path, *urls: str) -> Path:
        path = tmp_path / "mine.toml"
        TestFetch.write(path, server, sha256="0" * 64)
        text = path.read_text().replace("/d.zip", urls[0], 1)
        for url in urls[1:]:
            holds = 'holds = ["images", "masks"]' if "renamed" in url else ""
            text += f'[[files.copies]]\nurl = "{server.url}{url}"\n{holds}\n'
        with zipfile.ZipFile(io.BytesIO(dataset_zip())) as archive:
            archive.extractall(tmp_path / "here/mine")
        path.write_text(text)
        found = open_dataset(str(path), tmp_path / "here").content_hash()
        path.write_text(f'content_hash = "{found}"\n{text}')
        return path

    def test_the_first_is_dead_the_second_of_another_layout(self, server: Server, data: Path, tmp_path: Path) -> None:
        card = self.card(server, tmp_path, "/gone.zip", "/renamed.zip", "/d.zip")
        lines = list(fetch(str(card), data))
        assert TestFetch.tree(data) == list(TestFetch.FILES)
        assert [path for path, _ in server.seen] == ["/gone.zip", "/renamed.zip"]
        assert "404" in lines[1]
        assert lines[-2].endswith("(as on the card)")
        again = self.card(server, tmp_path, "/d.zip", "/renamed.zip")  # whatever its archive's hash
        list(fetch(str(again), data, existing="overwrite"))
        assert TestFetch.tree(data) == list(TestFetch.FILES)

    @pytest.mark.parametrize("urls", [("/gone.zip", "/lost.zip"), ("/other.zip", "/gone.zip"), ("/other.zip",)])
    def test_none_serves(self, server: Server, data: Path, tmp_path: Path, urls: tuple[str, ...]) -> None:
        card = self.card(server, tmp_path, *urls)
        said = refuses("", lambda: list(fetch(str(card), data)))
        assert all(part in said for part in ("404" if "/gone.zip" in urls else "content hash", "mine"))
        assert not TestFetch.tree(data)
        assert not (data / "mine").exists()

    def test_another_content_is_taken_only_if_allowed(self, server: Server, data: Path, tmp_path: Path) -> None:
        card = self.card(server, tmp_path, "/other.zip", "/d.zip")
        assert "not from there" in "\n".join(fetch(str(card), data))
        assert np.asarray(Image.open(data / "mine/img/a.png")).max() == 9
        lines = list(fetch(str(card), data, unverified=True, existing="overwrite"))
        assert any("NOT THE CARD'S" in line for line in lines)
        assert np.asarray(Image.open(data / "mine/img/a.png")).max() == 99

    def test_a_copy_that_names_something_else(self, server: Server, data: Path, tmp_path: Path) -> None:
        card = self.card(server, tmp_path, "/d.zip", "/renamed.zip")
        text = card.read_text()
        for wrong in ('["images"]', '["../images", "masks"]'):
            card.write_text(text.replace('["images", "masks"]', wrong))
            with pytest.raises(InputError, match=r"mine\.toml"):
                list(fetch(str(card), data))

    def test_a_shared_drive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def drive(*, output: str, **options: Any) -> None:
            asked.append(options.pop("id"))
            assert options == {"quiet": True, "resume": True, "use_cookies": False}
            if asked[-1] == "gone":
                raise RuntimeError("Cannot retrieve the public link of the file.")
            Path(output).write_bytes(CONTENT)

        monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=drive))
        base = "https://drive.google.com"
        links = ("file/d/a_-1/view?usp=sharing", "open?id=a_-1", "uc?export=download&id=a_-1", "u/0/uc?id=a_-1&x=y")
        for number, url in enumerate(links):
            assert download(f"{base}/{url}", tmp_path / str(number), sha256=SHA256) == SHA256
        assert asked == ["a_-1"] * 4
        for url, sha256 in (("open?id=gone", ""), ("open?id=x", "1" * 64)):
            refuses(r"drive\.google\.com", download, f"{base}/{url}", tmp_path / "no", sha256=sha256)
        assert len(list(tmp_path.iterdir())) == 4
        monkeypatch.setitem(sys.modules, "gdown", None)
        refuses(r"disbench\[drives\]", download, f"{base}/open?id=x", tmp_path / "no")


def test_links(server: Server, tmp_path: Path) -> None:
    server.files["/d.zip"] = dataset_zip()
    server.redirects["/moved.zip"] = f"{server.url}/d.zip"
    card = tmp_path / "mine.toml"
    TestFetch.write(card, server)
    more = (f'[[files.copies]]\nurl = "{server.url}/{name}.zip"\n' for name in ("moved", "gone"))
    card.write_text(card.read_text() + "".join(more) + '[[files.copies]]\nurl = "http://127.0.0.1:1/d.zip"\n')
    found = list(check_links([str(card)]))
    assert [answer.alive for *_, answer in found] == [True, True, False, False]
    assert [answer.bytes for *_, answer in found] == [len(server.files["/d.zip"])] * 2 + [None] * 2
    assert "404" in found[2][3].status
    assert "refused" in found[3][3].status
    assert "HEAD" in server.methods
    server.no_head = True
    assert [answer.alive for *_, answer in check_links([str(card)])] == [True, True, False, False]
    card.write_text(card.read_text().replace('file = "d.zip"', 'file = "d.zip"\nbytes = 7'))
    assert not any(answer.alive for *_, answer in check_links([str(card)]))
