"""What the tests of commands share: a published system on this machine, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import ARGUMENTS, CHROMIUM, NO_BROWSER
from tests.commands import disbench
from tests.published_system import Host, serving, weights, write_system


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    with serving({"/small.pth": weights("small", 12), "/large.pth": weights("large", 40)}) as found:
        yield found


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory, host: Host) -> Path:
    """The card of a published system."""
    return write_system(tmp_path_factory.mktemp("peers"), host.url)


@pytest.fixture(scope="session")
def environments(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environment, made once for the tests that need it only there."""
    folder = tmp_path_factory.mktemp("made")
    done = disbench("methods", "install", squares, "--variant", "unpublished", DISBENCH_METHODS=str(folder))
    assert done.returncode == 0, done.stderr
    return folder / "environments"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not for the session: while it is open, an event loop runs in this thread."""
    sync_api = pytest.importorskip("playwright.sync_api", reason=NO_BROWSER)
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page; afterwards it must have asked nobody else for anything, and have had no error."""
    complaints: list[str] = []
    contexts = []

    def opened(url: str = address, quiet: bool = True, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # on a busy machine, opening takes its time
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if quiet:
            page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda asked: asked.url.startswith((url, "data:", "blob:")) or complaints.append(asked.url))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
