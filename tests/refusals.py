"""What a call that is refused says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from disbench.core.errors import InputError


def refuses(match: str, call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """Check that a call is refused in one line that a pattern is found in; the line."""
    with pytest.raises(InputError, match=match or None) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
