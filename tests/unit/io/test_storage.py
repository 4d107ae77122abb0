"""Addresses as inputs and outputs, on fsspec's file system in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from disbench.core.errors import InputError
from disbench.io import addresses, outputs
from disbench.io.outputs import Output, open_output
from tests.refusals import refuses


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty machine, and an empty memory."""
    monkeypatch.setattr(addresses, "RETRY_DELAYS", ())
    switch_machine(monkeypatch, tmp_path / "machine-1")
    memory().store.clear()
    yield
    memory().store.clear()


def switch_machine(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("DISBENCH_CACHE", str(cache))
    monkeypatch.setattr(addresses, "_copied", {})


def localised(address: str) -> Path:
    """The copy of an address, as a new process would ask for it."""
    addresses._copied.clear()
    return addresses.local_copy(addresses.path_of(address))


def memory() -> Any:
    return fsspec.filesystem("memory")


def put(name: str, content: bytes) -> None:
    memory().pipe_file(f"/{name}", content)


def stored(folder: str) -> dict[str, bytes]:
    found = memory().find(f"/{folder}")
    return {name.removeprefix(f"/{folder}/"): memory().cat_file(name) for name in found}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_addresses_and_paths() -> None:
    assert addresses.is_address("s3://bucket/a b.json")
    assert not any(map(addresses.is_address, ("a/b", "/a//b", "C:/x", "http:/x", "card:Name", Path("/x"))))
    assert addresses.path_of("a/b") == Path("a/b")
    assert addresses.path_of("file:///folder/x") == localised("file:///folder/x") == Path("/folder/x")
    assert addresses.path_of("s3://b/x/y.json").parts[-4:] == ("s3", "b", "x", "y.json")
    assert addresses.restore_addresses(f"{addresses.path_of('s3://b/x')}/y: bad") == "s3://b/x/y: bad"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://bucket/../x", "not the address"),
        ("s3://bucket//x", "not the address"),
        ("memory://", "not the address"),
        ("sftp://me:hunter2@host/x", "environment"),
        ("https://host/x?X-Amz-Signature=hunter2", "secret"),
        ("zip://a::s3://bucket/x.zip", "chain"),
        ("s4://bucket/x", "did you mean 's3'"),
        ("memory://nowhere/x", "no such file"),
    ],
)
def test_addresses_that_cannot_be_used(address: str, words: str) -> None:
    said = refuses(words, localised, address)
    assert "hunter2" not in said


def test_a_folder_is_copied_once_and_follows_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    put("b/set/images/ä b.png", b"one")
    put("b/set/list.txt", b"two")
    place = localised("memory://b/set")
    assert place.name == "set"
    assert contents(place) == {"images/ä b.png": b"one", "list.txt": b"two"}
    copied = spy_on_copies(monkeypatch)
    localised("memory://b/set/")
    assert copied == []
    put("b/set/list.txt", b"TWO")  # of the same size
    memory().rm_file("/b/set/images/ä b.png")
    assert contents(localised("memory://b/set")) == {"list.txt": b"TWO"}
    assert localised("memory://b/set/list.txt") == place / "list.txt"
    assert len(copied) == 1
    (place / "list.txt").write_bytes(b"OWT")  # changed here
    assert contents(localised("memory://b/set")) == {"list.txt": b"TWO"}


def spy_on_copies(monkeypatch: pytest.MonkeyPatch, then: Callable[[str], None] = lambda name: None) -> list[str]:
    copied: list[str] = []
    real = type(memory()).get_file

    def get_file(self: Any, rpath: str, lpath: str, **options: Any) -> None:
        real(self, rpath, lpath, **options)
        copied.append(rpath)
        then(rpath)

    monkeypatch.setattr(type(memory()), "get_file", get_file)
    return copied


def test_a_file_that_changes_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    put("b/x.json", b"old")
    spy_on_copies(monkeypatch, lambda name: put("b/x.json", b"new"))
    refuses(r"memory://b/x\.json: changed during the copy", localised, "memory://b/x.json")
    assert not addresses.path_of("memory://b/x.json").exists()
    assert not [path for path in addresses.cache_folder().rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize("name", ["/b/set/../../evil", "/b/set//evil", "/elsewhere/evil", "/b/set/a\\..\\evil"])
def test_names_that_leave_the_folder_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    put("b/set/good", b"good")
    info = {"name": name, "size": 4, "type": "file", "created": 0}
    monkeypatch.setattr(type(memory()), "find", lambda *_, **__: {name: info})
    refuses("memory://b/set: ", localised, "memory://b/set")
    assert not list(addresses.cache_folder().rglob("*evil*"))


def test_only_what_is_looked_for_below_a_root_is_copied() -> None:
    from disbench.datasets.images import ImageFinder

    for name in ("SBD/train.txt", "VOC/val.txt", "val2017/a.jpg", "val2017/b.jpg"):
        put(f"data/{name}", name.encode())
    root = addresses.path_of("memory://data")
    assert addresses.exists(root / "VOC") and not addresses.exists(root / "COCO")
    assert addresses.local_copy(root / "SBD" / "train.txt").is_file()
    assert not addresses.local_copy(root / "none.txt", optional=True).exists()
    refuses(r"memory://data/none\.txt: no such file", addresses.local_copy, root / "none.txt")
    find = ImageFinder([root])
    found = find("a.jpg")
    assert found is not None and found.read_bytes() == b"val2017/a.jpg"
    assert find("c.jpg") is None
    assert set(contents(root)) == {"SBD/train.txt", "val2017/a.jpg"}


def test_another_machine_copies_the_same_to_the_same_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put("b/x.json", b"x")
    put("b/set/y", b"y")
    places = [addresses.local_copy(addresses.path_of(f"memory://b/{name}")) for name in ("x.json", "set")]
    record = addresses.copied_inputs()
    assert record == [("memory://b/x.json", str(places[0])), ("memory://b/set", str(places[1]))]
    (tmp_path / "machine-1").rename(tmp_path / "gone")
    switch_machine(monkeypatch, tmp_path / "machine-2")
    addresses.restore_copies(record)
    assert places[0].read_bytes() == b"x" and (places[1] / "y").read_bytes() == b"y"


def test_errors_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk stays an error of the disk; a missing package names the extra."""
    put("b/x", b"x")

    def raising(error: Exception) -> Callable[..., None]:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        return fail

    monkeypatch.setattr(type(memory()), "get_file", raising(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left") as caught:
        localised("memory://b/x")
    assert Path(caught.value.filename) == addresses.path_of("memory://b/x")
    monkeypatch.setattr("fsspec.core.url_to_fs", raising(ImportError("Install s3fs to access S3")))
    refuses(r'pip install "disbench\[remote\]"', localised, "s3://bucket/x")


def write_shards(there: Output, first: int, end: int) -> None:
    for number in range(first, end):
        path = there.folder / f"shard-{number}"
        path.write_bytes(b"%d" % number * 10)
        there.push(path)


def test_a_job_is_resumed_by_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_output("memory://b/out", ("shard-*", "end"), last="end") as there:
        write_shards(there, 0, 2)
        (there.folder / "shard-2").write_bytes(b"22")  # finished and not sent
        (there.folder / "shard-3.partial").write_bytes(b"3")
        assert set(stored("b/out")) == {"shard-0", "shard-1"}
        raise KeyboardInterrupt
    assert set(stored("b/out")) == {"shard-0", "shard-1", "shard-2"}
    put("b/out/notes.txt", b"not of the job")
    switch_machine(monkeypatch, tmp_path / "machine-2")
    copied = spy_on_copies(monkeypatch)
    with open_output("memory://b/out", ("shard-*", "end"), last="end") as there:
        assert set(contents(there.folder)) == {"shard-0", "shard-1", "shard-2"}
        (there.folder / "end").write_bytes(b"all")
    assert len(copied) == 3
    assert set(stored("b/out")) == {"shard-0", "shard-1", "shard-2", "end", "notes.txt"}


def test_overwrite_removes_the_last_file_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "end", "z"):
        put(f"b/out/{name}", b"old")
    removed: list[str] = []
    real = type(memory()).rm_file
    monkeypatch.setattr(type(memory()), "rm_file", lambda self, path: (removed.append(path), real(self, path)))
    with pytest.raises(InputError, match="memory://b/out: there are results"):
        open_output("memory://b/out", ("*",), last="end", existing="fail").__enter__()
    removed.clear()
    with open_output("memory://b/out", ("*",), last="end", existing="overwrite") as there:
        assert removed[1:] == ["/b/out/end", "/b/out/a", "/b/out/z"]
        assert not contents(there.folder)
        (there.folder / "end").write_bytes(b"new")
    assert stored("b/out") == {"end": b"new"}


def test_what_cannot_be_sent_is_kept_and_sent_later(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []
    monkeypatch.setattr(addresses, "RETRY_DELAYS", (0.0, 0.0))

    def broken(self: Any, lpath: str, rpath: str, **_: Any) -> None:
        attempts.append(rpath)
        raise ConnectionError("the network is gone")

    with open_output("memory://b/out", ("shard-*",)) as there, pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(memory()), "put_file", broken)
        refuses(r"memory://b/out/shard-0: the network is gone; check .* kept", write_shards, there, 0, 1)
        assert len(attempts) == 3
        assert contents(there.folder)
    assert set(stored("b/out")) == {"shard-0"}


def test_no_object_is_ever_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader sees under a finished name while a file is sent over an earlier one: all, or nothing."""
    seen: list[bytes | None] = []
    real = type(memory()).put_file

    def slow(self: Any, lpath: str, rpath: str, **options: Any) -> None:
        memory().pipe_file(rpath, b"half")
        seen.append(stored("b/out").get("x"))
        real(self, lpath, rpath, **options)

    monkeypatch.setattr(type(memory()), "put_file", slow)
    for content in (b"first", b"second"):
        with open_output("memory://b/out", ("x",)) as there:
            (there.folder / "x").write_bytes(content)
        assert stored("b/out") == {"x": content}
    assert set(seen) == {None, b"first"}


def test_a_journal_is_sent_as_a_consistent_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr(outputs.time, "monotonic", lambda: now[0])
    with pytest.raises(KeyboardInterrupt), open_output("memory://b/run", ("j.sqlite", "end"), last="end") as there:
        journal = sqlite3.connect(there.folder / "j.sqlite", isolation_level=None)
        journal.execute("CREATE TABLE rows (row INTEGER)")
        there.save()
        assert stored("b/run") == {}
        for row in range(3):
            now[0] += 61
            journal.execute("INSERT INTO rows VALUES (?)", (row,))
            there.save()
            there.save()
            assert rows_at_the_address(tmp_path) == row + 1
        journal.execute("INSERT INTO rows VALUES (3)")
        there.save()
        assert rows_at_the_address(tmp_path) == 3
        raise KeyboardInterrupt
    assert rows_at_the_address(tmp_path) == 4
    journal.execute("INSERT INTO rows VALUES (4)")  # as if killed before it could be sent
    journal.close()
    with open_output("memory://b/run", ("j.sqlite", "end"), last="end") as there:
        assert rows_at_the_address(tmp_path) == 5
        (there.folder / "j.sqlite").unlink()
        (there.folder / "end").write_bytes(b"all")
    assert stored("b/run") == {"end": b"all"}


def rows_at_the_address(folder: Path) -> int:
    (folder / "copy").write_bytes(stored("b/run")["j.sqlite"])
    connection = sqlite3.connect(folder / "copy")
    count: int = connection.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
    connection.close()
    return count


def test_one_process_at_a_time() -> None:
    with open_output("memory://b/out", ("*",)), pytest.raises(InputError, match="another process"):
        open_output("memory://b/out", ("*",)).__enter__()
