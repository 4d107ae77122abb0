"""Methods of the SAM family: clicks in, candidates out, with the kept candidate's logits fed back.

Subclasses of `SamMethod` implement a model's encoder, decoder, and upsampling of logits to the image's size.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from disbench.core.arrays import Float32Array
from disbench.core.clicks import Click
from disbench.core.errors import InputError, one_line, opencv
from disbench.core.prediction import Prediction, RgbImage
from disbench.io.files import add_file_name, atomic_write

MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)  # SAM's normalisation: RGB, 8-bit levels
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)
Encoding = TypeVar("Encoding")
IN_MEMORY = 4  # encodings kept in memory: objects of one image are consecutive in a dataset
Candidates = Literal[1, 3]


@dataclass(frozen=True, slots=True)
class Prompt:
    """Decoder input: an image's encoding and size (height, width), and all clicks so far (at least one).

    `previous` are the logits of the kept mask, float32 (low, low), or None.
    """

    encoding: Any
    size: tuple[int, int]
    clicks: tuple[Click, ...]
    previous: Float32Array | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoder output: logits, float32 (candidates, low, low), in the encoder's frame, and IoU estimates."""

    low: Float32Array
    scores: Float32Array


def best(decoded: Decoded) -> Decoded:
    """Only the candidate with the best score; the first on ties."""
    index = int(decoded.scores.argmax())
    return Decoded(decoded.low[index : index + 1], decoded.scores[index : index + 1])


class Encodings(Generic[Encoding]):
    """An encoder of images, uint8 (height, width, 3), RGB, that caches the last few encodings by image content."""

    def __init__(self, encode: Callable[[RgbImage], Encoding]) -> None:
        self._encode = encode
        self._known: dict[str, Encoding] = {}

    def of(self, image: RgbImage) -> Encoding:
        """The encoding of an image."""
        key = image_hash(image)
        found = self._known.pop(key) if key in self._known else self._encode(image)
        self._known[key] = found
        if len(self._known) > IN_MEMORY:
            del self._known[next(iter(self._known))]
        return found


def image_hash(image: RgbImage) -> str:
    """SHA-256 (hex) of an image's shape and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def stored(folder: Path, name: str, shape: tuple[int, ...], make: Callable[[], Float32Array]) -> Float32Array:
    """Read a float32 array from `NAME.npy` in a folder; computed and written if missing or damaged.

    Safe with several processes: each writes under its own name and renames.
    """
    path = folder / f"{name}.npy"
    with contextlib.suppress(Exception):  # a damaged header, parsed as a Python literal, can raise anything
        # Memory-mapped, so that a header that claims more data than the file has fails before allocating memory.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if found.dtype == np.float32 and found.shape == shape:
            return np.array(found)
    made = make()
    own = path.with_name(f"{name}.{os.getpid()}.npy")
    with add_file_name(own):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(own) as file:
            np.save(file, made)
        own.replace(path)
    return made


class SamMethod(ABC):
    """A model whose encoder runs once per image and whose decoder runs at each click.

    It offers `candidates` masks at the first click and, if `candidates` is 3, `later` masks afterwards. With
    `feedback`, the kept mask's logits are fed back from click 2 on.
    """

    def __init__(
        self, encode: Callable[[RgbImage], Any], feedback: bool, candidates: Candidates, later: Candidates
    ) -> None:
        self._encodings = Encodings(encode)
        self.feedback, self.candidates, self.later = feedback, candidates, later

    def offers_three(self, clicks: int) -> bool:
        """Whether all three multi-mask candidates are offered after this number of clicks.

        Otherwise one mask is: the best of the three by score after one click, later the single-mask token's.
        """
        return self.candidates == 3 and (clicks == 1 or self.later == 3)

    def encoding(self, image: RgbImage) -> Any:
        """The encoding of an image; the last few are kept."""
        return self._encodings.of(image)

    def open(self, image: RgbImage) -> SamSession:
        """Encode an image, uint8 (height, width, 3)."""
        return SamSession(self, self.encoding(image), (image.shape[0], image.shape[1]))

    def predict_batch(self, sessions: Sequence[SamSession], clicks: Sequence[Sequence[Click]]) -> list[Prediction]:
        """`predict` for several sessions, with one decoder call for all sessions that can share it."""
        prompts = [session.prompt(given) for session, given in zip(sessions, clicks, strict=True)]
        alike: dict[tuple[int, bool], list[int]] = {}
        for number, prompt in enumerate(prompts):
            alike.setdefault((len(prompt.clicks), prompt.previous is None), []).append(number)
        answers: dict[int, Decoded] = {}
        for numbers in alike.values():
            decoded = self.decode([prompts[number] for number in numbers])
            answers.update(zip(numbers, decoded, strict=True))
        return [session.take(answers[number]) for number, session in enumerate(sessions)]

    @abstractmethod
    def decode(self, prompts: Sequence[Prompt]) -> list[Decoded]:
        """Decode prompts with equal numbers of clicks and previous logits in all or none."""

    @abstractmethod
    def upsampled(self, low: Float32Array, size: tuple[int, int]) -> Float32Array:
        """Resize a mask's logits (low, low) to the image's size (height, width)."""


class SamSession:
    """One image of size (height, width) being segmented; any number of sessions of one method may be open."""

    def __init__(self, method: SamMethod, encoding: Any, size: tuple[int, int]) -> None:
        self._method, self._encoding, self._size = method, encoding, size
        self.restart()

    def restart(self) -> None:
        """Forget all clicks; the image stays encoded."""
        self._low: Float32Array | None = None
        self._kept = 0

    def undo(self) -> None:
        """Undo the last prediction."""
        self._low, self._kept = self._before

    def predict(self, clicks: Sequence[Click]) -> Prediction:
        """Candidates, bool (logits above 0), with the model's own scores."""
        return self.take(self._method.decode([self.prompt(clicks)])[0])

    def keep(self, index: int) -> None:
        """Choose the candidate whose logits go into the next call; by default the one with the best score."""
        self._kept = index

    def prompt(self, clicks: Sequence[Click]) -> Prompt:
        """The decoder's next input."""
        previous = self._low[self._kept] if self._low is not None and self._method.feedback else None
        return Prompt(self._encoding, self._size, tuple(clicks), previous)

    def take(self, decoded: Decoded) -> Prediction:
        """Keep the decoder's output for feedback, and upsample it to the image's size."""
        self._before = self._low, self._kept
        self._low, self._kept = decoded.low, int(decoded.scores.argmax())
        masks = [self._method.upsampled(low, self._size) > 0 for low in decoded.low]
        return Prediction(np.stack(masks), decoded.scores)


def on_device(network: Any, device: str, name: str) -> Any:
    """Move a torch module to a device; `InputError` if this machine does not have it."""
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{name}: no device {device!r} on this machine ({one_line(str(error))}); use cpu") from error


def inner_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(height, width) of an image, in whole pixels, after its long side is resized to `side`."""
    scale = side / max(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def padded_input(image: RgbImage, side: int) -> Float32Array:
    """SAM's encoder input, float32 (1, 3, side, side), from an image, uint8 (height, width, 3), RGB.

    The long side is resized to `side` pixels; the bottom or right is padded with zeros after normalisation.
    """
    from PIL import Image  # noqa: PLC0415

    height, width = inner_size((image.shape[0], image.shape[1]), side)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    padded = np.zeros((side, side, 3), dtype=np.float32)
    padded[:height, :width] = (np.asarray(resized, dtype=np.float32) - MEAN) / STD
    return np.ascontiguousarray(padded.transpose(2, 0, 1))[None]


def points(clicks: Sequence[Click], scale: tuple[float, float]) -> Float32Array:
    """Clicks in the encoder's frame, float32 (clicks, 2) of x, y times `scale`; the models add half a pixel."""
    return np.array([(click.x * scale[0], click.y * scale[1]) for click in clicks], dtype=np.float32)


def unpadded(low: Float32Array, size: tuple[int, int], side: int) -> Float32Array:
    """Resize logits (low, low) to an image's size as in SAM: bilinear to the frame, crop padding, bilinear again."""
    cv2 = opencv()
    height, width = inner_size(size, side)
    square = cv2.resize(low, (side, side), interpolation=cv2.INTER_LINEAR)
    logits: Float32Array = cv2.resize(square[:height, :width], size[::-1], interpolation=cv2.INTER_LINEAR)
    return logits
