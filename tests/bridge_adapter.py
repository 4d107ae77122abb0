"""An adapter of a method that behaves in a known way, good and bad; runs in the child, so it needs NumPy alone."""

import os
import sys
import time

import numpy as np


def load(repo, checkpoint, options, device):
    sys.path.insert(0, repo)
    if options.get("fault") == "missing":
        import no_such_module_of_a_peer  # noqa: F401
    print("loading", checkpoint)  # noqa: T201
    return Model(options)


class Model:
    def __init__(self, options):
        self.radius = options.get("radius", 12.0)
        self.candidates = options.get("candidates", 1)
        self.fault = options.get("fault", "")
        self.open_sessions = 0

    def open(self, image):
        assert image.dtype == np.uint8 and image.flags.writeable
        self.open_sessions += 1
        return Session(self, image)


class Session:
    """Discs around positive clicks, less those around negative ones, as `tests.toy_methods.Discs`."""

    def __init__(self, model, image):
        self.model, self.kept = model, []
        self.troubled = bool(model.fault) and (image[0, 0, 0] != 0 or model.fault.endswith("-always"))
        self.fault = model.fault.replace("-always", "") if self.troubled else ""
        self.rows, self.columns = np.mgrid[: image.shape[0], : image.shape[1]]

    def predict(self, clicks):
        if self.fault == "prints":
            print("a peer that is chatty", "x" * 5000, flush=True)  # noqa: T201
            os.write(1, b"from C, too\n")
            sys.stderr.write("x" * 1000000)
        if self.fault == "crashes" and len(clicks) == 7:
            sys.stderr.write("the peer fell over\n")
            os._exit(5)
        if self.fault == "killed" and len(clicks) == 3:
            os.kill(os.getpid(), 9)
        if self.fault == "hangs" and len(clicks) == 2:
            time.sleep(600)
        if self.fault == "leaves":
            if os.fork() == 0:
                time.sleep(600)
            os._exit(6)
        if self.fault == "raises" and len(clicks) == 2:
            raise RuntimeError("CUDA out of memory")
        masks = np.stack([self._discs(clicks, self.model.radius * (i + 1)) for i in range(self.model.candidates)])
        scores = [1.0 / (i + 1) for i in range(len(masks))]
        return masks, scores

    def keep(self, index):
        self.kept.append(index)

    def restart(self):
        self.kept = []

    def _discs(self, clicks, radius):
        mask = np.zeros(self.rows.shape, dtype=bool)
        for x, y, positive in clicks:
            disc = (self.rows - y) ** 2 + (self.columns - x) ** 2 <= radius**2
            mask = mask | disc if positive else mask & ~disc
        return mask
