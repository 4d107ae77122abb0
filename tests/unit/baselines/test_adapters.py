"""The adapters of published methods, driven through the bridge against small packages of the same call shapes.

The packages are written here: a predictor draws each click where it was told that it is, and notes every call.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from disbench.baselines.bridge import adapters
from disbench.baselines.bridge.method import Bridge
from disbench.baselines.cards import card_names, load_card
from disbench.core.clicks import Click
from disbench.core.errors import InputError

TORCH = """
    import contextlib
    import numpy
    def device(name): return "device " + name
    @contextlib.contextmanager
    def no_grad(): yield
    def tensor(values, dtype, device): return numpy.asarray(values, dtype)
    def load(path, map_location): return {"weights": 1}
    class Tensor:
        to = None
    class nn:
        class Module: pass
        class Identity: pass
"""
NOTES = """
    import json, pathlib, numpy
    LOG = pathlib.Path(__file__).with_name("log.jsonl")
    def note(**facts):
        with LOG.open("a") as file: file.write(json.dumps(facts, default=str) + "\\n")
    def drawn(shape, clicks, value=0.5):
        # every click where it is said to be: (row, column, positive)
        canvas = numpy.full(shape, value, numpy.float32)
        for row, column, positive in clicks: canvas[row, column] = 1.0 if positive else 0.0
        return canvas
"""
CLICKER = """
    class Click:
        def __init__(self, is_positive, coords, indx=None):
            self.is_positive, self.coords, self.indx = is_positive, coords, indx
    class Clicker:
        def __init__(self): self.clicks_list = []
        def add_click(self, click): self.clicks_list.append(click)
        def get_clicks(self): return self.clicks_list
        def __len__(self): return len(self.clicks_list)
"""
UTILS = """
    from notes import note
    class Net:
        backbone = "backbone"
    def load_is_model(checkpoint, device, *more, **options):
        note(loaded=checkpoint.rpartition("/")[2], device=device, more=more, options=options)
        return Net()
"""
POSITIONS = """
    from notes import note
    def interpolate_pos_embed_inference(backbone, size, device): note(positions=[backbone, size, device])
"""
PREDICTORS = """
    import numpy
    from notes import note, drawn
    def get_predictor(net, mode, device, **options):
        note(mode=mode, options=options)
        return Predictor()
    class Predictor:
        calls = 0
        def set_input_image(self, image):
            self.image = numpy.asarray(image)
            self.original_image = self.image.transpose(2, 0, 1)[None]
            self.prev_prediction = numpy.zeros((1, 1, *self.image.shape[:2]), numpy.float32)
            note(image=self.image.shape, kind=self.image.dtype, mean=float(self.image.mean()))
        def answer(self, clicker):
            self.calls += 1  # the value of the background tells the state
            points = [(*click.coords, click.is_positive) for click in clicker.get_clicks()]
            return drawn(self.image.shape[:2], points, self.calls / 10)
        def get_prediction(self, clicker):
            return self.answer(clicker)
"""
FCFI = """
        def get_prediction(self, clicker, previous, gate):
            note(gate=gate, previous=float(previous[0, 0]))
            return self.answer(clicker), 0.1, None, None
"""
PICLICK = """
        kept = -1
        def get_prediction(self, clicker, max_score):
            note(kept=self.kept, previous=float(self.prev_prediction[0, 0, 0, 0]), max_score=max_score)
            answer = self.answer(clicker)
            return numpy.stack([answer, answer / 2])
        def set_prev_for_zoom_in(self, index): self.kept = index
"""
GRACO = """
        def get_prediction(self, clicker, gra):
            note(gra=gra)
            return self.answer(clicker)
"""
TRANSFORMS = """
    class ToTensor:
        def __call__(self, image): return image / 255
    class Normalize:
        def __init__(self, mean, deviation): self.mean, self.deviation = mean, deviation
        def __call__(self, image): return (image - self.mean) / self.deviation
    class Compose:
        def __init__(self, transforms): self.transforms = transforms
        def __call__(self, image):
            for transform in self.transforms: image = transform(image)
            return image
"""
PREDICTOR = """
    from notes import note, drawn
    class BasePredictor:
        def __init__(self, net): self.model = net
        def set_image(self, image):
            self.shape, self.orig_img_shape = image.shape[:2], (1, 3, *image.shape[:2])
            self.model.orig_size = self.shape
        def predict(self, clicker):
            assert self.model.orig_size == self.shape, "another session's size"
            return drawn(self.shape, [(*click.coords, click.is_positive) for click in clicker.get_clicks()])
"""
SAM = """
    import numpy
    from notes import note, drawn
    class Net:
        def to(self, device): note(device=device); return self
        def eval(self): pass
    sam_model_registry = {"vit_b": lambda checkpoint: Net()}
    class SamPredictor:
        def __init__(self, net): pass
        def set_image(self, image): self.shape = image.shape[:2]
        def predict(self, point_coords, point_labels, mask_input, multimask_output, **more):
            note(multi=multimask_output, low=None if mask_input is None else mask_input.tolist(), more=more)
            points = [(int(y), int(x), label) for (x, y), label in zip(point_coords, point_labels)]
            count = 3 if multimask_output else 1
            masks = numpy.stack([drawn(self.shape, points, 0.0)] * count)
            low = numpy.arange(count, dtype=numpy.float32).reshape(count, 1, 1) + len(points) * 10
            return masks > 0, numpy.array([0.2, 0.9, 0.4], numpy.float32)[:count], low
"""
BUILD_SAM2 = """
    def build_sam2(config, checkpoint, device): return config
"""
SAM2_PREDICTOR = SAM.replace("SamPredictor", "SAM2ImagePredictor")
CORE = """
    from notes import note, drawn
    def init_model(name, backbone, checkpoint, if_cuda): return [name, backbone, if_cuda]
    def predict(net, image, points, if_sis, if_cuda):
        note(net=net, points=points.tolist(), if_sis=if_sis, if_cuda=if_cuda)
        return drawn(image.shape[:2], [(y, x, label) for x, y, label in points], 0.0).astype("uint8")
"""
INFERENCE = """
    from notes import note, drawn
    def predict_wo(settings, net, sample, points):
        note(whole=points.tolist(), before=int(sample["pre_pred"].sum()))
        mask = drawn(sample["img"].shape[:2], [(y, x, label) for x, y, label in points], 0.0)
        sample["pre_pred"] = mask.astype("uint8")
        return sample["pre_pred"], mask
    def cal_expand_r_new_final(click, before, mask): return 5, bool(click[2])
    def predict_hr_new_final(settings, net, sample, points, focused, pred, result):
        note(focused=[[int(value) for value in place["pt_hr"]] for place in focused])
        return pred
"""
FOCUS_UTILS = """
    import sys
    from notes import note
    def create_parser():
        note(arguments=sys.argv[1:])
        return dict(output_stride=16, sync_bn=False, special_lr=1.0, ref_size=384, aux_parameter={},
                    zoom_in=0, hr_val="-hrv" in sys.argv)
"""
MY_NET = """
    class MyNet:
        def __init__(self, **options): pass
        def load_state_dict(self, weights): pass
        def to(self, device): return self
        def eval(self): pass
"""
SEMANTIC_SAM = """
    import torch
    import MultiScaleDeformableAttention
    from notes import note
    def build_model(config):
        note(built=config["file"], pretrained=config["MODEL"]["BACKBONE"]["LOAD_PRETRAINED"])
    class SemanticSAMPredictor:
        def __init__(self, model): assert isinstance(model, torch.nn.Module)
        def predict(self, image_ori, image, point):
            (x, y), = point
            height, width = image_ori.shape[:2]
            assert tuple(image.shape) == (3, height, width)
            masks = torch.full((6, height, width), -1.0)
            masks[:, round(y * height), round(x * width)] = torch.ones(()).to("cuda").cuda()
            return masks, torch.arange(6.0)[None, None] / 10
"""
BASE_MODEL = """
    import torch
    class BaseModel(torch.nn.Module):
        def __init__(self, config, net): super().__init__()
        def from_pretrained(self, file): return self
"""
ARGUMENTS = """
    def load_opt_from_config_file(file):
        return {"file": file, "MODEL": {"BACKBONE": {"LOAD_PRETRAINED": True}}}
"""
POSTPROCESS = """
    def sem_seg_postprocess(result, img_size, output_height, output_width):
        assert tuple(result.shape[1:]) == tuple(img_size)
        return result[:, :output_height, :output_width]
"""
RESIZE = """
    class Resize:
        def __init__(self, side, interpolation): assert side == 640
        def __call__(self, image): return image
"""
COMMON = {"torch.py": TORCH, "notes.py": NOTES}
ISEGM = {
    "isegm/inference/clicker.py": CLICKER,
    "isegm/inference/utils.py": UTILS,
    "isegm/inference/predictors.py": PREDICTORS,
    "isegm/model/modeling/pos_embed.py": POSITIONS,
}
FILES: dict[str, dict[str, str]] = {
    **dict.fromkeys(("ritm", "focalclick", "cdnet", "emc-click", "simpleclick", "icmformer", "cfr-icl"), ISEGM),
    "graco": {
        **ISEGM,
        "isegm/inference/predictors.py": PREDICTORS + GRACO,
        "isegm/model/is_plainvit_graco_two_signal_model_lora.py": "",
    },
    "fbrs": {**ISEGM, "torchvision/transforms.py": TRANSFORMS},
    "fcfi": {**ISEGM, "isegm/inference/predictors.py": PREDICTORS + FCFI},
    "piclick": {**ISEGM, "isegm/inference/predictors.py": PREDICTORS + PICLICK},
    "segnext": {
        f"segnext/{name}": text for name, text in {**ISEGM, "isegm/inference/predictor.py": PREDICTOR, **COMMON}.items()
    },
    "sam-official": {"segment_anything/__init__.py": SAM},
    "sam-hq-official": {"segment_anything/__init__.py": SAM},
    "sam2-official": {"sam2/build_sam.py": BUILD_SAM2, "sam2/sam2_image_predictor.py": SAM2_PREDICTOR},
    "semantic-sam": {
        **{"semantic_sam/__init__.py": SEMANTIC_SAM, "semantic_sam/BaseModel.py": BASE_MODEL, "torch.py": ""},
        **{"semantic_sam/modules.py": POSTPROCESS, "utils/arguments.py": ARGUMENTS},
        "torchvision/transforms.py": RESIZE,
    },
    "fcanet": {"core.py": CORE},
    "focuscut": {"inference.py": INFERENCE, "utils.py": FOCUS_UTILS, "model/hrcnet_base/my_net.py": MY_NET},
}
IMAGE = np.full((6, 9, 3), 255, dtype=np.uint8)
FIRST, SECOND = Click(7, 1, True), Click(2, 4, False)


class Peer:
    """A stand-in for a peer's checkout, and the method that runs it."""

    def __init__(self, card: str, folder: Path, **settings: Any) -> None:
        self.log = folder / "log.jsonl"
        for name, text in {**COMMON, **FILES[card]}.items():
            if name == "torch.py" and not text:
                continue  # the real one
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text))
        (folder / "weights.pth").write_bytes(b"")
        found = load_card(card)
        options = {name: option.default for name, option in found.options.items()}
        self.method = Bridge(
            adapter=found.adapter,
            repo=str(folder),
            python=sys.executable,
            checkpoint=str(folder / "weights.pth"),
            **{**options, **settings},
        )

        self.begun = 0

    def begin(self) -> None:
        self.begun = len(self._lines())

    def notes(self, key: str, start: bool = False) -> list[Any]:
        """What the stand-in noted under a key, in order; or all since the child's start."""
        return [line[key] for line in self._lines()[0 if start else self.begun :] if key in line]

    def _lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Makes peers; those of equal settings share a child."""
    made: dict[str, Peer] = {}

    def make(card: str, **settings: Any) -> Peer:
        name = f"{card} {sorted(settings.items())}"
        if name not in made:
            made[name] = Peer(card, tmp_path_factory.mktemp(card), **settings)
        made[name].begin()
        return made[name]

    yield make
    for peer in made.values():
        peer.method.close()


@pytest.mark.parametrize("card", sorted(FILES))
def test_clicks_fall_where_they_were_made(card: str, peers: Any) -> None:
    session = peers(card).method.open(IMAGE)
    first = session.predict([FIRST]).masks
    assert first.shape[1:] == (6, 9)
    assert first[0, 1, 7] == 1
    assert first[0].astype(float).argmax() == 1 * 9 + 7
    session.keep(0)
    second = session.predict([FIRST, SECOND]).masks[0]
    assert (second[1, 7], second[4, 2]) == (1, 0)


@pytest.mark.parametrize("card", ["ritm", "fcfi", "piclick", "segnext", "sam-official", "focuscut"])
def test_sessions_keep_their_own_state(card: str, peers: Any) -> None:
    method = peers(card).method
    one, other = method.open(IMAGE), method.open(IMAGE[:5, :8])
    before = one.predict([FIRST]).masks
    one.keep(0)
    assert other.predict([FIRST]).masks.shape[1:] == (5, 8)
    other.keep(0)
    after = one.predict([FIRST, SECOND]).masks
    assert after.shape[1:] == (6, 9)
    alone = method.open(IMAGE)
    assert np.array_equal(alone.predict([FIRST]).masks, before)
    alone.keep(0)
    assert np.array_equal(alone.predict([FIRST, SECOND]).masks, after)


def brs(zoom: Any, flip: bool = True, **predictor: Any) -> dict[str, Any]:
    return {"with_flip": flip, "zoom_in_params": zoom, "predictor_params": predictor}


def fixed(side: int) -> dict[str, Any]:
    return {"skip_clicks": -1, "target_size": [side, side]}


Options = dict[str, Any]
ZOOM = {"target_size": 400}
FOCAL_ZOOM = {"expansion_ratio": 1.4, "target_size": 400}
CASCADE = {"cascade_step": 5, "cascade_adaptive": True, "cascade_clicks": 1}
FBRS_B = {"crop": 0, "clicks_limit": 5, "flip": False, "mode": "f-BRS-B"}
MADE: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("ritm", {}, "NoBRS", brs(ZOOM)),
    ("ritm", FBRS_B, "f-BRS-B", brs(None, flip=False, net_clicks_limit=5)),
    ("ritm", {"fixed": True, "crop": 600}, "NoBRS", brs(fixed(600))),
    ("fbrs", {}, "f-BRS-B", {**brs(ZOOM), "predictor_params": None}),
    ("simpleclick", {}, "NoBRS", brs(fixed(448))),
    ("graco", {"crop": 672}, "NoBRS", brs(fixed(672))),
    ("cfr-icl", {"crop": 672}, "NoBRS", brs(fixed(672), **CASCADE)),
    ("focalclick", {}, "FocalClick", {"infer_size": 256, "focus_crop_r": 1.4, **brs(FOCAL_ZOOM, flip=False)}),
    ("cdnet", {}, "CDNet", {"infer_size": 384, "zoom_in_params": FOCAL_ZOOM, "predictor_params": {}}),
    ("emc-click", {"short": 576}, "EMC-Click", brs({"target_size": 576})),
]


@pytest.mark.parametrize(("card", "settings", "mode", "options"), MADE)
def test_predictors_are_as_published(card: str, settings: Options, mode: str, options: Options, peers: Any) -> None:
    peer = peers(card, **settings)
    peer.method.open(IMAGE)
    assert peer.notes("mode") == [mode]
    assert peer.notes("options")[-1] == options


def test_what_single_peers_are_given(peers: Any) -> None:
    peer = peers("simpleclick", crop=672)
    assert peer.notes("positions", start=True) == [["backbone", [672, 672], "device cpu"]]
    assert peer.notes("more", start=True) == [[False]]
    peer = peers("graco")
    for granularity in (None, 0.3):
        peer.method.open(IMAGE, granularity).predict([FIRST])
    assert peer.notes("gra") == [None, 0.3]
    assert peer.notes("options", start=True)[0]["lora_checkpoint"].endswith("/weights/graco/GraCo_base_lora.pth")
    assert not peers("simpleclick", crop=672).method.takes_granularity
    peer = peers("fbrs")
    peer.method.open(IMAGE)
    white = np.mean((1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]))
    assert peer.notes("mean")[0] == pytest.approx(white)
    assert peer.notes("options", start=True)[0] == {"norm_radius": 260}
    assert peers("sam-official").method.open(IMAGE).predict([FIRST]).scores == pytest.approx([0.2, 0.9, 0.4])
    assert "backbone='resnet50',pretrained=False" in peers("focuscut").notes("arguments", start=True)[0]


def test_semantic_sam_answers_the_last_positive_click(peers: Any) -> None:
    peer = peers("semantic-sam")
    assert [Path(file).name for file in peer.notes("built", start=True)] == ["semantic_sam_only_sa-1b_swinT.yaml"]
    assert peer.notes("pretrained", start=True) == [False]
    session = peer.method.open(IMAGE)
    for clicks, (x, y) in (([FIRST], (7, 1)), ([FIRST, SECOND], (7, 1)), ([FIRST, SECOND, Click(0, 5, True)], (0, 5))):
        found = session.predict(clicks)
        assert found.masks.shape == (6, 6, 9)
        assert found.scores == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
        assert [tuple(place) for place in np.argwhere(found.masks[0])] == [(y, x)]


HQ_ONLY = {"feedback": False, "hq_only": True}
LOOKS = [[[7, 1, 1]], [[7, 1, 1]], [[7, 1, 1], [2, 4, 0]], [[7, 1, 1], [2, 4, 0], [0, 5, 1]]]
"""FocusCut looks at the whole image twice at first."""
TOLD: list[tuple[str, dict[str, Any], list[int], int, dict[str, Any]]] = [
    ("fcfi", {}, [1, 1, 1], 0, {"gate": [0.0, 1.0, 1.0], "previous": pytest.approx([0.0, 0.1, 0.2])}),
    ("piclick", {}, [2, 2], 1, {"kept": [-1, 1], "previous": pytest.approx([0.0, 0.05])}),
    ("sam-official", {"later": 1}, [3, 1], 2, {"multi": [True, False], "low": [None, [[[12.0]]]]}),
    ("sam-hq-official", HQ_ONLY, [3, 3], 0, {"low": [None, None], "more": [{"hq_token_only": True}] * 2}),
    ("fcanet", {"integrity": True}, [1, 1], 0, {"points": [[[7, 1, 1]], [[7, 1, 1], [2, 4, 0]]], "if_sis": [True] * 2}),
    ("focuscut", {}, [1, 1, 1], 0, {"whole": LOOKS, "before": [0, 1, 1, 1], "focused": [[[0, 5, 1]]]}),
]


@pytest.mark.parametrize(("card", "settings", "offered", "keep", "told"), TOLD)
def test_a_peer_is_told_clicks_and_what_was_kept(
    card: str, settings: Options, offered: list[int], keep: int, told: Options, peers: Any
) -> None:
    peer = peers(card, **settings)
    session = peer.method.open(IMAGE)
    for number, masks in enumerate(offered, 1):
        assert session.predict([FIRST, SECOND, Click(0, 5, True)][:number]).masks.shape == (masks, 6, 9)
        session.keep(keep)
    assert {key: peer.notes(key) for key in told} == told


def test_sam_forgets_its_clicks_and_keeps_the_image(peers: Any) -> None:
    peer = peers("sam-official", later=1)
    session = peer.method.open(IMAGE)
    for clicks in ([FIRST], [FIRST, SECOND]):
        session.predict(clicks)
    session.restart()
    session.predict([FIRST])
    assert [low is None for low in peer.notes("low")] == [True, False, True]
    assert not hasattr(peers("ritm").method.open(IMAGE), "restart"), "it has nothing encoded to keep"


def test_a_folder_without_the_package_is_said_so(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    options = {"crop": 400, "target_ratio": 1.4}
    with pytest.raises(InputError, match="isegm"):
        Bridge(adapter="cdnet", repo=str(tmp_path), python=sys.executable, checkpoint=str(weights), **options)


TREE = ast.parse(Path(str(adapters.__file__)).read_text())
DEFINED = {node.name: node for node in TREE.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
ENTRIES = next(node.value for node in TREE.body if isinstance(node, ast.AnnAssign))


@pytest.mark.parametrize(("first", "last"), [((40, 30), (180, 61)), ((3, 5), (20, 190)), ((0, 0), (199, 199))])
def test_iog_is_given_the_corners_of_the_stretched_mask(first: tuple[int, int], last: tuple[int, int]) -> None:
    (left, top), (right, bottom) = first, last
    mask = np.zeros((200, 200), dtype=np.float32)
    mask[top : bottom + 1, (left + right) // 2 - 4 : (left + right) // 2 + 5] = 1  # a cross
    mask[(top + bottom) // 2 - 4 : (top + bottom) // 2 + 5, left : right + 1] = 1
    crop = np.pad(mask, 30)[top : bottom + 61, left : right + 61]
    rows, columns = np.nonzero(cv2.resize(crop, (512, 512), interpolation=cv2.INTER_LINEAR) > 0.5)
    found = adapters.crop_points(np.array([left + 7, top + 9]), np.array(first), np.array(last), 30, 10, 512)
    x, y = [columns.min() - 10, columns.max() + 10], [rows.min() - 10, rows.max() + 10]
    assert found[1:].tolist() == [[x[0], y[0]], [x[0], y[1]], [x[1], y[0]], [x[1], y[1]]]
    here = np.zeros_like(crop)
    here[39, 37] = 1  # the pixel that was clicked, stretched: the point is within it
    assert cv2.resize(here, (512, 512), interpolation=cv2.INTER_LINEAR)[found[0][1], found[0][0]] > 0.5


def options_read(adapter: str) -> set[str]:
    """The names under which an adapter looks into its options: in its function and in all that this one names."""
    assert isinstance(ENTRIES, ast.Dict)
    entry = ENTRIES.values[list(adapters.LOADERS).index(adapter)]
    found, seen, waiting = set[str](), set[str](), list[ast.AST]([entry])
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name) and node.id in DEFINED and node.id not in seen:
                seen.add(node.id)
                waiting.append(DEFINED[node.id])
            text = ast.unparse(node) if isinstance(node, ast.Subscript) else ""
            found |= set(re.findall(r"\boptions\['(\w+)'\]$", text))
    return found


@pytest.mark.parametrize("card", [name for name in card_names() if load_card(name).status == "bridge"])
def test_cards_offer_what_their_adapters_read(card: str) -> None:
    found = load_card(card)
    unused = {"flip"} if card == "piclick" else set()  # it always flips
    assert set(found.options) == options_read(found.adapter) - unused
