"""f-BRS (Sofiiuk, Petrov, Barinova, Konushin 2020), github.com/SamsungLabs/fbrs_interactive_segmentation."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

SHARED = runpy.run_path(str(Path(__file__).with_name("_peers.py")))
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def load(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Any:
    """Read a network; the backbone is told from the names of its weights.

    Args:
        repo: checkout of the code.
        checkpoint: file with the weights by name.
        options: `mode` (f-BRS-A, -B, -C, RGB-BRS, DistMap-BRS or NoBRS), `flip`, `crop` (pixels of the zoom-in's
            long side; 0: no zoom-in), `clicks_limit` (clicks that reach the network; 0: as the mode has it),
            `radius` (of the distance maps).
        device: torch's name of it.

    Returns:
        The model.
    """
    enter, _, _, make = SHARED["isegm"](repo, checkpoint, device, norm_radius=int(options["radius"]))
    limit = int(options["clicks_limit"])

    def predictor() -> Any:
        return make(
            options["mode"],
            with_flip=bool(options["flip"]),
            zoom_in_params=SHARED["zoom"](int(options["crop"])),
            predictor_params={"net_clicks_limit": limit} if limit else None,
        )

    # Its data set normalises the images, so its predictor takes normalised ones.
    transforms = enter("torchvision.transforms")
    prepared = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])

    def begin(asked: Any, image: Any) -> None:
        asked.set_input_image(prepared(image))

    return SHARED["Model"](enter, predictor, begin)
