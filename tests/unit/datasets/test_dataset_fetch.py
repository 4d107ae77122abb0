"""Downloads from a server that misbehaves in every way that servers do; all of it on 127.0.0.1."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
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
from disbench.datasets.fetch import fetch
from disbench.io.download import ATTEMPTS, _Redirects, download

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """What is served, how, and what was asked for.

    Attributes:
        files: path -> content.
        etag: version of all files; None sends none.
        ranges: whether ranges are honoured.
        if_range: whether If-Range is.
        length: whether Content-Length is sent.
        cuts: bytes after which the next answers break off, one an answer.
        statuses: statuses of the next answers, before anything is served.
        seen: method, path and range of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"/a.bin": CONTENT}
        self.redirects: dict[str, str] = {}
        self.etag: str | None = '"1"'
        self.ranges = self.if_range = self.length = True
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.seen: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.seen.append((request.path, asked))
        if request.path in self.redirects:
            request.send_response(302)
            request.send_header("Location", self.redirects[request.path])
            request.end_headers()
            return
        if self.statuses or request.path not in self.files:
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        content = self.files[request.path]
        start = 0
        fresh = not self.if_range or request.headers.get("If-Range") in (None, self.etag)
        if asked and self.ranges and fresh:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(content)}")
                request.end_headers()
                return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.length:
            request.send_header("Content-Length", str(len(content) - start))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        body = content[start:]
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


def get(server: Server, folder: Path, pauses: list[float], name: str = "a.bin", **options: Any) -> bytes:
    path = folder / name
    digest = download(f"{server.url}/{name}", path, pause=pauses.append, **options)
    content = path.read_bytes()
    assert digest == hashlib.sha256(content).hexdigest()
    assert [p.name for p in folder.iterdir()] == [name]
    return content


class TestDownload:
    def test_plain(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        assert get(server, tmp_path, pauses, sha256=SHA256.upper(), size=len(CONTENT)) == CONTENT
        assert server.seen == [("/a.bin", None)]
        assert not pauses

    def test_what_is_there_is_not_fetched_again(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        for _ in range(2):
            get(server, tmp_path, pauses, sha256=SHA256)
        assert len(server.seen) == 1
        (tmp_path / "a.bin").write_bytes(b"something else")
        assert get(server, tmp_path, pauses, sha256=SHA256) == CONTENT

    def test_a_transfer_that_breaks_off_goes_on(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        server.cuts = [100_000, 50_000]
        assert get(server, tmp_path, pauses, sha256=SHA256) == CONTENT
        assert [asked for _, asked in server.seen] == [None, "bytes=100000-", "bytes=150000-"]
        assert len(pauses) == 2

    def test_a_server_that_breaks_off_often_but_sends_something_each_time(
        self, server: Server, tmp_path: Path, pauses: list[float]
    ) -> None:
        server.cuts = [20_000] * 12
        assert get(server, tmp_path, pauses) == CONTENT
        assert len(server.seen) == 13

    def test_resumed_by_a_later_call(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        server.cuts = [100_000, *[0] * ATTEMPTS]
        with pytest.raises(InputError, match=r"a\.bin: the transfer broke off after 100000 of 300000 bytes"):
            get(server, tmp_path, pauses)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin.part", "a.bin.part.json"]
        server.seen.clear()
        assert get(server, tmp_path, pauses, sha256=SHA256) == CONTENT
        assert server.seen == [("/a.bin", "bytes=100000-")]

    def test_killed_after_the_last_byte(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        (tmp_path / "a.bin.part").write_bytes(CONTENT)
        (tmp_path / "a.bin.part.json").write_text(json.dumps([f"{server.url}/a.bin", '"1"']))
        assert get(server, tmp_path, pauses, sha256=SHA256) == CONTENT
        assert server.seen == [("/a.bin", f"bytes={len(CONTENT)}-")]

    @pytest.mark.parametrize("note", [None, "{", '{"url": 1}', "[]", '{"url":"http://elsewhere"}'])
    def test_a_part_of_unknown_origin_is_not_continued(
        self, server: Server, tmp_path: Path, pauses: list[float], note: str | None
    ) -> None:
        (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
        if note is not None:
            (tmp_path / "a.bin.part.json").write_text(note)
        assert get(server, tmp_path, pauses) == CONTENT
        assert server.seen == [("/a.bin", None)]

    def test_a_server_that_ignores_ranges(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        server.ranges, server.cuts = False, [100_000]
        assert get(server, tmp_path, pauses) == CONTENT
        assert [asked for _, asked in server.seen] == [None, "bytes=100000-"]

    def test_a_server_without_versions_sends_it_all_again(
        self, server: Server, tmp_path: Path, pauses: list[float]
    ) -> None:
        server.etag, server.cuts = None, [100_000]
        assert get(server, tmp_path, pauses) == CONTENT
        assert [asked for _, asked in server.seen] == [None, None]

    @pytest.mark.parametrize("if_range", [True, False])
    @pytest.mark.parametrize("size", [150_000, 300_000, 400_000])
    def test_a_file_that_changed_meanwhile(
        self, server: Server, tmp_path: Path, pauses: list[float], if_range: bool, size: int
    ) -> None:
        server.cuts = [200_000, *[0] * ATTEMPTS]
        with pytest.raises(InputError):
            get(server, tmp_path, pauses)
        other = np.random.default_rng(1).bytes(size)
        server.files["/a.bin"], server.etag, server.if_range = other, '"2"', if_range
        assert get(server, tmp_path, pauses) == other

    def test_an_answer_without_a_length(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        server.length = False
        assert get(server, tmp_path, pauses, sha256=SHA256) == CONTENT
        (tmp_path / "a.bin").unlink()
        server.cuts = [1000]
        with pytest.raises(InputError, match="1000 bytes arrived, where the card has 300000"):
            get(server, tmp_path, pauses, size=len(CONTENT))

    def test_a_wrong_hash_or_size(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        with pytest.raises(InputError, match=f"its SHA-256 is {SHA256}, where the card has 00; it was thrown"):
            get(server, tmp_path, pauses, sha256="00")
        assert not list(tmp_path.iterdir())
        with pytest.raises(InputError, match=r"\d+ bytes arrived, where the card has 5"):
            get(server, tmp_path, pauses, size=5)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_answers_that_stay(self, server: Server, tmp_path: Path, pauses: list[float], status: int) -> None:
        server.statuses = [status]
        with pytest.raises(InputError, match=rf"a\.bin: the server answers {status} "):
            get(server, tmp_path, pauses)
        assert len(server.seen) == 1

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_answers_that_pass(self, server: Server, tmp_path: Path, pauses: list[float], status: int) -> None:
        server.statuses = [status] * (ATTEMPTS - 1)
        assert get(server, tmp_path, pauses) == CONTENT
        assert pauses == [2.0, 4.0, 8.0, 16.0]
        server.statuses = [status] * ATTEMPTS
        with pytest.raises(InputError, match=f"the server answers {status} .*run the same command again"):
            get(server, tmp_path, pauses, name="b.bin")

    def test_nobody_answers(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        server.server.shutdown()
        server.server.server_close()
        with pytest.raises(InputError, match=r"no connection \(.*[Rr]efused"):
            get(server, tmp_path, pauses)
        assert len(pauses) == ATTEMPTS - 1

    def test_redirects(self, server: Server, tmp_path: Path, pauses: list[float]) -> None:
        server.redirects = {"/b.bin": f"{server.url}/a.bin"}
        server.cuts = [100_000]
        assert get(server, tmp_path, pauses, name="b.bin", sha256=SHA256) == CONTENT
        assert server.seen[-1] == ("/a.bin", "bytes=100000-")
        server.redirects = {"/c.bin": "/c.bin"}
        with pytest.raises(InputError, match="the server answers 302"):
            get(server, tmp_path, pauses, name="c.bin")

    @pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
    def test_redirects_to_elsewhere(self, server: Server, tmp_path: Path, pauses: list[float], to: str) -> None:
        server.redirects = {"/b.bin": to}
        with pytest.raises(InputError, match=r"sends on to|is not allowed"):
            get(server, tmp_path, pauses, name="b.bin")

    def test_redirects_never_leave_https(self) -> None:
        request, handler = Request("https://127.0.0.1/a"), _Redirects()
        followed = handler.redirect_request(request, None, 302, "", {}, "https://127.0.0.1/b")
        assert followed is not None
        assert followed.full_url == "https://127.0.0.1/b"
        with pytest.raises(InputError, match="sends on to http://127"):
            handler.redirect_request(request, None, 302, "", {}, "http://127.0.0.1/b")

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "/etc/passwd", ""])
    def test_other_kinds_of_addresses(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(InputError, match="not an address that can be fetched"):
            download(url, tmp_path / "x")


def dataset_zip(prefix: str = "", shade: int = 9) -> bytes:
    """A dataset of two images in an archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for stem in ("a", "b"):
            for part, pixels in (("img", np.full((3, 4, 3), shade)), ("gt", np.eye(3, 4) * 255)):
                data = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
                archive.writestr(f"{prefix}{part}/{stem}.png", data.getvalue())
        archive.writestr("__MACOSX/img/._a.png", b"")
        archive.writestr("__MACOSX/gt/._a.png", b"")
        archive.writestr(f"{prefix}readme.txt", b"not wanted")
    return out.getvalue()


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
[options.images]
default = "img"
[options.masks]
default = "gt"
[options.rule]
default = "any-channel"
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
        assert sorted(p.name for p in data.iterdir()) == ["mine"]
        assert list(open_dataset(str(card), data).ids) == ["a", "b"]
        assert lines[0] == f"d.zip: from {server.url}/d.zip"
        assert lines[1].endswith("(as on the card)")
        assert lines[2] == f"d.zip: img, gt in {data}/mine"
        assert list(fetch(str(card), data)) == ["d.zip: what it holds is here already"]
        assert len(server.seen) == 1

    def test_an_archive_without_folders_around(self, card: Path, data: Path, server: Server) -> None:
        server.files["/d.zip"] = dataset_zip()
        self.write(card, server)
        list(fetch(str(card), data))
        assert self.tree(data) == list(self.FILES)

    def test_a_tar(self, card: Path, data: Path, server: Server) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name in ("img/a.png", "gt/a.png"):
                archive.addfile(tarfile.TarInfo(f"x/{name}"))
        server.files["/d.zip"] = out.getvalue()
        self.write(card, server)
        list(fetch(str(card), data))
        assert self.tree(data) == ["mine/gt/a.png", "mine/img/a.png"]

    def test_several_files_one_of_them_no_archive(self, card: Path, data: Path, server: Server) -> None:
        server.files["/list.txt"] = b"a\n"
        more = f"""
[[files]]
url = "{server.url}/list.txt"
file = "lists/val.txt"
to = "more"
unpack = false
sha256 = "{hashlib.sha256(b"a" + bytes([10])).hexdigest()}"
"""
        self.write(card, server, more=more)
        list(fetch(str(card), data))
        assert self.tree(data) == [*self.FILES, "mine/more/lists/val.txt"]
        assert (data / "mine/more/lists/val.txt").read_bytes() == b"a\n"

    def test_without_a_hash_only_if_allowed_and_never_silently(self, card: Path, data: Path, server: Server) -> None:
        self.write(card, server, sha256="")
        with pytest.raises(InputError, match=r"no SHA-256 for d\.zip, .*--no-hash"):
            list(fetch(str(card), data))
        assert not server.seen
        assert not data.exists()
        lines = list(fetch(str(card), data, unverified=True))
        digest = hashlib.sha256(server.files["/d.zip"]).hexdigest()
        assert lines[1] == f"d.zip: SHA-256 {digest} (NOT CHECKED: none on the card)"
        assert self.tree(data) == list(self.FILES)

    def test_a_wrong_hash_is_not_unpacked(self, card: Path, data: Path, server: Server) -> None:
        self.write(card, server, sha256="1" * 64)
        for allowed in (False, True):
            with pytest.raises(InputError, match="its SHA-256 is"):
                list(fetch(str(card), data, unverified=allowed))
        assert not self.tree(data)

    def test_a_broken_transfer_goes_on_where_it_stopped(
        self, card: Path, data: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("disbench.io.download.ATTEMPTS", 1)
        monkeypatch.setattr("disbench.io.download.BREAK", 0.0)
        server.cuts = [500, 0]
        with pytest.raises(InputError, match="broke off after 500 of"):
            list(fetch(str(card), data))
        assert not (data / "mine").exists()
        list(fetch(str(card), data))
        assert server.seen[-1] == ("/d.zip", "bytes=500-")
        assert self.tree(data) == list(self.FILES)

    def test_an_interrupted_unpacking(
        self, card: Path, data: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is half unpacked is never in place, and the archive need not be fetched again."""

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

    def test_interrupted_between_two_folders(
        self, card: Path, data: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename, count = Path.rename, [0]

        def second_fails(self: Path, target: Path) -> Path:
            count[0] += self.name in ("img", "gt")
            if count[0] == 2:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", second_fails)
            with pytest.raises(KeyboardInterrupt):
                list(fetch(str(card), data))
        assert self.tree(data) == [".downloads/mine/d.zip", *self.FILES[2:]]
        assert list(fetch(str(card), data))[-1] == f"d.zip: gt in {data}/mine"
        assert self.tree(data) == list(self.FILES)

    def test_existing(self, card: Path, data: Path, server: Server) -> None:
        list(fetch(str(card), data))
        old = (data / "mine/img/a.png").read_bytes()
        (data / "mine" / "img" / "own.png").write_bytes(old)
        (data / "mine" / "notes.txt").write_text("mine")
        server.files["/d.zip"] = dataset_zip(shade=200)
        self.write(card, server)
        with pytest.raises(InputError, match="mine/img: it is there already"):
            list(fetch(str(card), data, existing="fail"))
        list(fetch(str(card), data))
        assert (data / "mine/img/a.png").read_bytes() == old
        list(fetch(str(card), data, existing="overwrite"))
        assert (data / "mine/img/a.png").read_bytes() != old
        assert self.tree(data) == [*self.FILES, "mine/notes.txt"]

    def test_overwriting_that_fails_leaves_the_old(
        self, card: Path, data: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        list(fetch(str(card), data))
        old = {path: (data / path).read_bytes() for path in self.FILES}
        server.files["/d.zip"] = dataset_zip("new/", shade=200)
        self.write(card, server)
        rename = Path.rename

        def new_fails(self: Path, target: Path) -> Path:
            if self.parent.name == "new":
                raise OSError(28, "No space left on device")
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", new_fails)
            with pytest.raises(OSError, match="No space"):
                list(fetch(str(card), data, existing="overwrite"))
        assert {path: (data / path).read_bytes() for path in self.FILES} == old

    @pytest.mark.parametrize(
        ("name", "message"),
        [("../evil", "relative path"), ("img/a.png", "no folder in it holds img and gt")],
    )
    def test_archives_that_mean_harm_or_hold_something_else(
        self, card: Path, data: Path, server: Server, name: str, message: str
    ) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(name, b"x")
        server.files["/d.zip"] = out.getvalue()
        self.write(card, server)
        with pytest.raises(InputError, match=message):
            list(fetch(str(card), data))
        assert self.tree(data) == [".downloads/mine/d.zip"]
        assert not (data / "mine").exists()
        assert not list(data.parent.rglob("evil"))

    def test_an_unverified_archive_that_is_damaged_is_fetched_again(
        self, card: Path, data: Path, server: Server
    ) -> None:
        whole = server.files["/d.zip"]
        self.write(card, server, sha256="")
        server.files["/d.zip"] = whole[:-9]
        with pytest.raises(InputError, match=r"d\.zip: "):
            list(fetch(str(card), data, unverified=True))
        assert not self.tree(data)
        server.files["/d.zip"] = whole
        list(fetch(str(card), data, unverified=True))
        assert self.tree(data) == list(self.FILES)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('to = "../.."', "relative path"),
            ('to = "/absolute"', "relative path"),
            ("unpack = 1", "unpack is true or false"),
        ],
    )
    def test_cards_that_mean_harm(self, card: Path, data: Path, server: Server, line: str, message: str) -> None:
        self.write(card, server, more=line)
        with pytest.raises(InputError, match=message):
            list(fetch(str(card), data))
        assert not server.seen

    def test_other_addresses_than_http(self, card: Path, data: Path, server: Server, tmp_path: Path) -> None:
        shutil.copy(card, tmp_path / "d.zip")
        card.write_text(card.read_text().replace(server.url, f"file://{tmp_path}"))
        with pytest.raises(InputError, match="not an address that can be fetched"):
            list(fetch(str(card), data))

    def test_what_has_no_address_or_no_place(self, card: Path, data: Path) -> None:
        with pytest.raises(InputError, match="davis-585: its card has no address to fetch from; see the"):
            list(fetch("davis-585", data))
        with pytest.raises(InputError, match="where to"):
            list(fetch(str(card), None))
        with pytest.raises(InputError, match="unknown dataset 'grabcat'"):
            list(fetch("grabcat", data))
