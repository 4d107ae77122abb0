"""Stored runs: the same rows whatever the workers, batches and interruptions; no fault stops the others."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from disbench.baselines.cards import MethodSpec, method_spec
from disbench.core.errors import InputError
from disbench.core.samples import SampleSource
from disbench.datasets.file_samples import FileSamples, Record
from disbench.harness import Execution, Protocol, StoredRun, evaluate, read_run, run_benchmark
from disbench.harness.measures import read_rows
from disbench.harness.store import CLICKS, RUN, SECONDS, Journal
from disbench.harness.verification import verify_run
from tests import toy_methods
from tests.refusals import refuses
from tests.toy_samples import ToySource, make_samples

METHODS = str(Path(toy_methods.__file__))
SHORT = Protocol(max_clicks=4)


def spec(name: str, *options: str) -> MethodSpec:
    return method_spec(f"{METHODS}:{name}", options)


def rows(run: StoredRun) -> list[dict[str, object]]:
    return run.rows().drop_columns(list(SECONDS)).to_pylist()  # type: ignore[no-any-return]


def test_a_run_is_what_evaluate_gives(tmp_path: Path) -> None:
    source = ToySource()
    run = run_benchmark(spec("Discs", "candidates=3"), source, tmp_path / "run", SHORT)
    alone = evaluate(toy_methods.Discs(candidates=3), source, max_clicks=4)
    assert rows(run) == alone.to_table().drop_columns(list(SECONDS)).to_pylist()
    said = json.loads((tmp_path / "run" / RUN).read_text())
    assert said["protocol"] == {**SHORT.as_dict(), "every": 1, "limit": None}
    assert said["dataset"]["content_hash"] == source.content_hash()
    assert [said["result"][key] for key in ("samples", "clicks", "failed")] == [6, 24, []]
    assert (said["method"]["entry"], said["method"]["options"]["candidates"]) == ("toy_methods.py:Discs", 3)
    assert len(said["method"]["source_sha256"]) == 64
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [CLICKS, RUN]


def test_workers_and_batches_change_no_row(tmp_path: Path) -> None:
    found = [
        rows(run_benchmark(spec("Discs"), ToySource(), tmp_path / name, SHORT, Execution(workers, batch=batch)))
        for name, workers, batch in (("one", 1, 1), ("two", 2, 1), ("batch", 2, 4))
    ]
    assert found[0] == found[1] == found[2]
    some = run_benchmark(spec("Discs"), ToySource(), tmp_path / "some", SHORT, every=2, limit=2)
    assert (list(some.by_sample()), some.record.every) == (["s0", "s2"], 2)


@pytest.mark.parametrize("batch", [1, 3])
def test_every_kind_of_fault_costs_one_sample(tmp_path: Path, batch: int) -> None:
    faults = (0, 1, 2, 3, 4, 5, 6, 0, *range(10, 17), 20, 21, 0)
    execution = Execution(2, batch=batch, timeout=1.0)
    run = run_benchmark(spec("Misbehaves"), ToySource(18, faults), tmp_path / "run", SHORT, execution)
    failed = {failure.sample: failure for failure in run.record.result.failed}
    assert set(failed) == {f"s{number}" for number, fault in enumerate(faults) if 0 < fault < 20}
    assert all(failure.reason.isprintable() for failure in failed.values())
    assert failed["s8"].reason == "open returned a NoneType, which has no predict(clicks)"
    assert failed["s9"].reason.startswith("predict raised SystemExit: 3")
    assert failed["s11"].reason.startswith("predict raised KeyboardInterrupt")
    assert failed["s5"].reason == "predict: no answer within 1 s"
    assert failed["s6"].reason == "predict: the worker process ended (exit code 9)"
    assert failed["s5"].click == failed["s6"].click == 3
    by_sample = run.by_sample()
    assert len(by_sample) == 18
    assert all(len(ious) == 4 for ious in by_sample.values())
    assert by_sample["s5"][:2].min() > 0
    assert by_sample["s5"][2:].tolist() == [0, 0]
    good = run_benchmark(spec("Discs"), ToySource(18, faults), tmp_path / "good", SHORT).by_sample()
    assert all(by_sample[name].tolist() == good[name].tolist() for name in by_sample if name not in failed)


def test_a_broken_batch_is_told(tmp_path: Path) -> None:
    source = ToySource(4, (0, 7, 0, 0))
    run = run_benchmark(spec("Misbehaves"), source, tmp_path / "run", SHORT, Execution(1, batch=2))
    assert run.record.result.batches_repeated.count == 4
    assert "the batch does not work" in run.record.result.batches_repeated.first_reason
    assert run.record.result.failed == ()


def test_what_no_other_sample_would_mend_stops_the_run(tmp_path: Path) -> None:
    for name, source, batch, words in (
        ("NotMade", ToySource(), 1, r"NotMade: .*no weights here"),
        ("NoOpen", ToySource(), 1, r"NoOpen: .*open\(image\)"),
        ("NoBatch", ToySource(), 2, "predict_batch"),
        ("Discs", ToySource(1, unreadable=0), 1, "not a whole image"),
    ):
        with pytest.raises(InputError, match=words):
            run_benchmark(spec(name), source, tmp_path / name, SHORT, Execution(1, batch=batch))
    assert not list(tmp_path.rglob("*.*"))


def test_resume_runs_only_what_is_missing(tmp_path: Path) -> None:
    whole = run_benchmark(spec("Discs"), ToySource(), tmp_path / "whole", SHORT)
    interrupt_after(4, spec("Discs"), ToySource(), tmp_path / "part")
    journal = Journal(tmp_path / "part")
    assert list(journal.finished()) == ["s0", "s1", "s2", "s3"]
    journal.close()
    refuses("not finished", read_run, tmp_path / "part")
    assert rows(run_benchmark(spec("Discs"), ToySource(), tmp_path / "part", SHORT)) == rows(whole)
    assert not list(tmp_path.rglob("*.partial"))


def interrupt_after(samples: int, method: MethodSpec, source: SampleSource, out: Path) -> None:
    """Press Ctrl-C when some samples are finished."""
    left = iter(range(samples - 1))

    def grown() -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(method, source, out, SHORT, grown=grown)


def stored_samples(folder: Path, count: int = 5) -> FileSamples:
    """Toy samples as files; whatever is wrong with one is seen when it is read."""
    folder.mkdir()
    for sample in make_samples(count):
        Image.fromarray(sample.image).save(folder / f"{sample.id}.png")
        Image.fromarray((sample.target == 1).astype(np.uint8)).save(folder / f"{sample.id}-mask.png")
    records = [Record(f"s{number}", f"s{number}.png", f"s{number}-mask.png") for number in range(count)]
    return FileSamples("toy", folder, "any-value", records, {})


def harm(folder: Path) -> dict[str, str]:
    """Harm all stored samples but the first two; sample -> the file that is bad."""
    bad = {f"s{number}": f"s{number}{'' if number > 4 else '-mask'}.png" for number in range(2, 8)}
    Image.new("L", (9, 8), 1).save(folder / bad["s2"])
    Image.new("L", Image.open(folder / bad["s3"]).size).save(folder / bad["s3"])
    (folder / bad["s4"]).unlink()
    (folder / bad["s5"]).write_bytes((folder / bad["s5"]).read_bytes()[:60])
    (folder / bad["s6"]).write_text("not an image")
    (folder / bad["s7"]).unlink()
    (folder / bad["s7"]).mkdir()
    return bad


def test_bad_samples_neither_block_nor_lose_the_others(tmp_path: Path) -> None:
    source, out, asked = stored_samples(tmp_path / "data", 8), tmp_path / "run", tmp_path / "asked"
    whole = rows(run_benchmark(spec("Counted"), source, tmp_path / "whole", SHORT))
    shutil.copytree(source.folder, tmp_path / "good")
    bad = harm(source.folder)
    method = spec("Counted", f"marker={asked}")
    for workers in (1, 2):  # as long as they are bad, nothing else is done again
        run = run_benchmark(method, source, out, SHORT, Execution(workers))
        assert {failure.sample: failure.click for failure in run.record.result.failed} == dict.fromkeys(bad, 1)
        assert all(bad[failure.sample] in failure.reason for failure in run.record.result.unread)
        assert [row for row in rows(run) if row["sample"] not in bad] == [
            row for row in whole if row["sample"] not in bad
        ]
        assert all(run.by_sample()[sample].tolist() == [0, 0, 0, 0] for sample in bad)
        assert verify_run(out, source=source).holds
        assert read_rows(run).unread == list(bad)
        assert asked.read_text().count("open") == 2
    (source.folder / bad["s7"]).rmdir()
    shutil.copytree(tmp_path / "good", source.folder, dirs_exist_ok=True)
    assert rows(run_benchmark(method, source, out, SHORT)) == whole
    assert asked.read_text().count("open") == 8
    assert sorted(found.name for found in out.iterdir()) == [CLICKS, RUN]


def test_changed_samples_are_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, out, asked = stored_samples(tmp_path / "data"), tmp_path / "run", tmp_path / "asked"
    method = spec("Counted", f"marker={asked}")
    interrupt_after(3, method, source, out)
    opened = asked.read_text().count("open")
    Image.new("L", Image.open(source.folder / "s1-mask.png").size, 1).save(source.folder / "s1-mask.png")
    run = run_benchmark(method, source, out, SHORT)
    assert "s1" in caplog.text
    assert rows(run) == rows(run_benchmark(method, source, tmp_path / "new", SHORT))
    assert asked.read_text().count("open") == opened + 1 + (5 - 3) + 5
    assert run.record.dataset.content_hash == source.content_hash()


def test_other_data_is_refused(tmp_path: Path) -> None:
    interrupt_after(2, spec("Discs"), stored_samples(tmp_path / "data"), tmp_path / "run")
    other = stored_samples(tmp_path / "other")
    for sample in other.ids:
        Image.new("RGB", Image.open(other.folder / f"{sample}.png").size).save(other.folder / f"{sample}.png")
    refuses(r"content_hash", run_benchmark, spec("Discs"), other, tmp_path / "run", SHORT)
    assert run_benchmark(
        spec("Discs"), FileSamples("toy", tmp_path / "data", "any-value", other._records, {}), tmp_path / "run", SHORT
    )


def test_reading_that_ends_the_process_costs_one_sample(tmp_path: Path) -> None:
    run = run_benchmark(spec("Discs"), ToySource(3, deadly=1), tmp_path / "run", SHORT)
    (failed,) = run.record.result.unread
    assert failed.sample == "s1"
    assert "exit code 9" in failed.reason


def test_an_existing_run(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def go(*options: str, protocol: Protocol = SHORT, **existing: Any) -> StoredRun:
        return run_benchmark(spec("Discs", *options), ToySource(), out, protocol, Execution(2), **existing)

    go()
    before = (out / CLICKS).stat().st_mtime_ns
    go()
    assert (out / CLICKS).stat().st_mtime_ns == before
    refuses(r"method\.options\.radius: .*, now 3\.0.*overwrite", go, "radius=3")
    refuses(r"protocol.selection", go, protocol=Protocol(max_clicks=4, selection="score"))
    refuses("already", go, existing="fail")
    assert go("radius=3", existing="overwrite").record.method.options["radius"] == 3.0


class ChangedSource(ToySource):
    """Its files are others once a sample was read."""

    hashes = 0

    def content_hash(self) -> str:
        type(self).hashes += 1
        return f"{self.hashes:064x}"


def test_a_dataset_that_is_changed_while_it_is_read(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for _ in range(2):
        with pytest.raises(InputError, match=r"run: 6 samples of toy changed.*run the same command again"):
            run_benchmark(spec("Discs"), ChangedSource(), out, SHORT)
        assert not list(out.iterdir())
    assert run_benchmark(spec("Discs"), ToySource(), out, SHORT).folder == out


@pytest.mark.fault
@pytest.mark.usefixtures("spawned")
def test_processes_killed_from_outside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each sample is tried twice before a death counts as the method's: the rows are those of an undisturbed run."""
    whole = run_benchmark(spec("Discs"), ToySource(), tmp_path / "whole", SHORT)
    killed: list[int] = []
    stop = threading.Event()

    def kill_some() -> None:
        moments = random.Random()
        while not stop.is_set() and len(killed) < 2:
            time.sleep(moments.uniform(0.3, 1.5))
            found = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
            for process in found[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed.append(process.pid)

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        run = run_benchmark(spec("Interrupted", "seconds=0.4"), ToySource(), tmp_path / "run", SHORT, Execution(2))
    finally:
        stop.set()
        killer.join()
    assert rows(run) == rows(whole)
    assert run.record.result.failed == ()
    assert len(caplog.messages) == run.record.execution.workers_lost <= len(killed)
