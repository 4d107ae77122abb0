"""Adapters that wrap the code of published methods as models (docs/bridge.md), by the names used in cards.

Adapters run in the peer's Python (3.7 or later, with NumPy) and do not import disbench. `Model` documents the
methods of a session.
"""
# ruff: noqa: D102

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


def enter(repo: str, package: str = "isegm") -> Callable[[str], Any]:
    """Put a checkout that contains `package` first on the path; returns a function that imports modules by name."""
    folder = Path(repo).resolve()
    sys.path.insert(0, str(folder))
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"{repo} has no {package}; name the folder of the peer's checkout")
    places = [Path(place).resolve() for place in spec.submodule_search_locations or [spec.origin or ""]]
    if not any(folder in place.parents for place in places):
        raise ImportError(f"{repo} has no {package}; one was found in {places[0]}")
    return importlib.import_module


class Model:
    """An adapter's model: opens a session for each image, from the same parts.

    A session's `predict` takes all clicks so far, (x, y, positive) each, and returns (masks, scores or None); masks are
    bool or float32 (candidates, height, width). The optional `keep` receives the index of the kept candidate; the
    optional `restart` forgets all clicks without encoding the image again.
    """

    def __init__(self, session: Callable[..., Any], *parts: Any) -> None:
        self.session, self.parts = session, parts

    def open(self, image: Any) -> Any:
        """Begin with an image: uint8 (height, width, 3), RGB."""
        return self.session(*self.parts, image)


# RITM's package `isegm` and systems built on it. A predictor holds the image, the zoomed region and the previous mask,
# so each session makes its own; the network is shared. Clicks are (row, column), added to a clicker that counts them.
# Checkpoints contain `config` and `state_dict`; f-BRS checkpoints contain only the weights.

MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's


class IsegmSession:
    """One image, with a growing list of clicks. Subclasses override what differs in a system's predictor."""

    def __init__(self, load: Any, make: Any, options: dict[str, Any], image: Any) -> None:
        self.load, self.options = load, options
        self.torch, self.clicks = load("torch"), load("isegm.inference.clicker")
        self.predictor, self.clicker = make(), self.clicks.Clicker()
        self.masks: Any = None
        with self.torch.no_grad():
            self.begin(image)

    def predict(self, clicks: Any) -> Any:
        for x, y, positive in clicks[len(self.clicker) :]:
            # NumPy integers, as in the peers' own clicks: torch turns them into float64 but Python's into float32, and
            # f-BRS's optimisation depends on the last bits.
            place = (np.int64(y), np.int64(x))
            self.clicker.add_click(self.clicks.Click(is_positive=bool(positive), coords=place))
        with self.torch.no_grad():
            masks = self.ask()
        self.masks = masks if masks.ndim == 3 else masks[None]
        return self.masks, None

    def begin(self, image: Any) -> None:
        self.predictor.set_input_image(image)

    def ask(self) -> Any:
        """The predictor's answer: float32 or bool (height, width) or (candidates, height, width)."""
        return self.predictor.get_prediction(self.clicker)


class GranularModel(Model):
    """A model whose sessions take a granularity in (0, 1]: the size of the target relative to the whole object."""

    def open(self, image: Any, granularity: float | None = None) -> Any:
        return self.session(*self.parts, image, granularity)


def network(repo: str, checkpoint: str, device: str, *given: Any, **named: Any) -> tuple[Any, Any, Any]:
    """The peer's import function, the torch device, and the network; `given` and `named` go to `load_is_model`."""
    load = enter(repo)
    where = load("torch").device(device)
    return load, where, load("isegm.inference.utils").load_is_model(checkpoint, where, *given, **named)


def model(
    load: Any,
    where: Any,
    net: Any,
    arguments: Any,
    options: dict[str, Any],
    session: Any = IsegmSession,
    kind: Any = Model,
) -> Model:
    """A model from a network; `arguments` maps the options to the predictor's mode and other arguments."""
    get_predictor = load("isegm.inference.predictors").get_predictor

    def make() -> Any:
        mode, more = arguments(options)
        return get_predictor(net, mode, where, **more)

    made: Model = kind(session, load, make, options)
    return made


def plain(
    arguments: Any, repo: str, checkpoint: str, options: dict[str, Any], device: str, session: Any = IsegmSession
) -> Model:
    """A system whose network loads like RITM's."""
    return model(*network(repo, checkpoint, device), arguments, options, session)


def zoom(size: object, **more: Any) -> dict[str, Any] | None:
    """RITM's zoom-in options: the object's region at `size` pixels, from click 2 on; None if `size` is 0."""
    return dict(more, target_size=int(size)) if int(size) else None  # type: ignore[call-overload]


def wide_zoom(options: dict[str, Any]) -> dict[str, Any] | None:
    """The zoom-in of systems that expand the object's region by a ratio."""
    return zoom(options["crop"], expansion_ratio=float(options["target_ratio"]))


def fixed_zoom(size: object) -> dict[str, Any]:
    """The zoom-in of systems with a fixed input of `size` x `size` pixels: aspect not kept, from the first click."""
    return {"skip_clicks": -1, "target_size": (int(size), int(size))}  # type: ignore[call-overload]


def brs(options: dict[str, Any], zoom_in: Any, **predictor: Any) -> dict[str, Any]:
    """Predictor arguments of the f-BRS family."""
    return {"with_flip": bool(options["flip"]), "zoom_in_params": zoom_in, "predictor_params": predictor}


def click_limit(options: dict[str, Any]) -> dict[str, int]:
    """Limit on the clicks that reach the network; empty for 0, the mode's default."""
    return {"net_clicks_limit": int(options["clicks_limit"])} if options["clicks_limit"] else {}


def ritm(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """RITM (Sofiiuk, Petrov, Konushin 2021), github.com/SamsungLabs/ritm_interactive_segmentation."""
    zoom_in = fixed_zoom(options["crop"]) if options["fixed"] else zoom(options["crop"])
    return options["mode"], brs(options, zoom_in, **click_limit(options))


def focalclick(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """FocalClick (Chen, Zhao, Zhang and others 2022), github.com/XavierCHEN34/ClickSEG."""
    sizes = {"infer_size": int(options["size"]), "focus_crop_r": float(options["focus_ratio"])}
    return options["mode"], {**sizes, **brs(options, wide_zoom(options))}


def cdnet(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """CDNet (Chen, Zhao, Yu and others 2021), github.com/XavierCHEN34/ClickSEG; it thresholds and flips internally."""
    return "CDNet", {"infer_size": 384, "zoom_in_params": wide_zoom(options), "predictor_params": {}}


def emcclick(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """EMC-Click (Du, Yuan, Wang, Tai 2023), github.com/feiaxyt/EMC-Click."""
    return "EMC-Click", brs(options, {"target_size": int(options["short"])})


def fcfi(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """FCFI (Wei, Zhang, Yong 2023), github.com/veizgyauzgyauz/FCFI."""
    return "NoBRS", brs(options, wide_zoom(options))


class FcfiSession(IsegmSession):
    """The predictor also takes the previous probabilities and a gate: 0 at the first click, 1 afterwards."""

    def ask(self) -> Any:
        if self.masks is None:
            height, width = self.predictor.original_image.shape[2:]
            return self.predictor.get_prediction(self.clicker, np.zeros((height, width), np.float32), 0.0)[0]
        return self.predictor.get_prediction(self.clicker, self.masks[0], 1.0)[0]


class FbrsSession(IsegmSession):
    """The predictor expects normalised images, since f-BRS normalises in its data set."""

    def begin(self, image: Any) -> None:
        transforms = self.load("torchvision.transforms")
        prepared = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
        self.predictor.set_input_image(prepared(image))


def fbrs(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """f-BRS (Sofiiuk, Petrov, Barinova, Konushin 2020), github.com/SamsungLabs/fbrs_interactive_segmentation."""

    def arguments(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        made = brs(options, zoom(options["crop"]), **click_limit(options))
        return options["mode"], {**made, "predictor_params": made["predictor_params"] or None}

    loaded = network(repo, checkpoint, device, norm_radius=int(options["radius"]))
    return model(*loaded, arguments, options, FbrsSession)


def plain_vit(
    repo: str,
    checkpoint: str,
    options: dict[str, Any],
    device: str,
    predictor_options: Any = lambda options: {},
    session: Any = IsegmSession,
    kind: Any = Model,
    **named: Any,
) -> Model:
    """SimpleClick (Liu, Xu, Bertasius, Niethammer 2023), github.com/uncbiag/SimpleClick, and systems built on it.

    A plain vision transformer with a fixed input size. iCMFormer (Li, Vosselman, Yang 2023),
    github.com/lik1996/iCMFormer, has the same interface.
    """
    load, where, net = network(repo, checkpoint, device, False, **named)
    positions = load("isegm.model.modeling.pos_embed")
    positions.interpolate_pos_embed_inference(net.backbone, fixed_zoom(options["crop"])["target_size"], where)

    def arguments(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return "NoBRS", brs(options, fixed_zoom(options["crop"]), **predictor_options(options))

    return model(load, where, net, arguments, options, session, kind)


class GracoSession(IsegmSession):
    """A session with a fixed granularity."""

    def __init__(self, load: Any, make: Any, options: dict[str, Any], image: Any, granularity: float | None) -> None:
        self.granularity = granularity
        super().__init__(load, make, options, image)

    def ask(self) -> Any:
        return self.predictor.get_prediction(self.clicker, gra=self.granularity)


def graco(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """GraCo (Zhao, Li, Cheng and others 2024), github.com/Zhao-Yian/GraCo: SimpleClick's network with added layers.

    CLIP, which encodes phrases and would be downloaded here, is left out.
    """
    load = enter(repo)
    torch = load("torch")
    load("isegm.model.is_plainvit_graco_two_signal_model_lora").ClipTextEncoder = lambda **_: torch.nn.Identity()
    lora = str(Path(repo) / options["lora"])
    return plain_vit(repo, checkpoint, options, device, session=GracoSession, kind=GranularModel, lora_checkpoint=lora)


def cascade(options: dict[str, Any]) -> dict[str, Any]:
    """CFR-ICL (Sun, Xian, Xu, Capriotti, Yao 2024), github.com/TitorX/CFR-ICL-Interactive-Segmentation."""
    return {
        "cascade_step": int(options["cascade"]) + 1,
        "cascade_adaptive": bool(options["adaptive"]),
        "cascade_clicks": int(options["cascade_clicks"]),
    }


class PiclickSession(IsegmSession):
    """Seven masks per click, or only the one that the system chooses."""

    def ask(self) -> Any:
        return self.predictor.get_prediction(self.clicker, max_score=bool(self.options["max_score"]))

    def keep(self, index: int) -> None:
        """Feed a mask back as the previous mask of the next click, which the zoom-in follows."""
        before = self.predictor.prev_prediction
        mask = self.torch.tensor(self.masks[index][None, None], dtype=before.dtype, device=before.device)
        self.predictor.prev_prediction = mask
        self.predictor.set_prev_for_zoom_in(index)


def piclick(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """PiClick (Yan, Wang, Liu, Deng and others 2023), github.com/cilinyan/PiClick; it always flips."""
    repo, checkpoint = str(Path(repo).resolve()), str(Path(checkpoint).resolve())
    folder = tempfile.TemporaryDirectory()  # every predictor creates an image folder in the working directory
    os.chdir(folder.name)
    made = plain_vit(repo, checkpoint, dict(options, flip=True), device, session=PiclickSession)
    made.folder = folder  # type: ignore[attr-defined]  # removed with the model
    return made


class SegnextSession(IsegmSession):
    """The predictor has other names for the same methods."""

    def begin(self, image: Any) -> None:
        self.predictor.set_image(image)

    def ask(self) -> Any:
        # The network remembers the size of its last image, which may belong to another session.
        self.predictor.model.orig_size = self.predictor.orig_img_shape[-2:]
        return self.predictor.predict(self.clicker)


def segnext(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """SegNext (Liu, Cho, Bansal, Niethammer 2024), github.com/uncbiag/SegNext."""
    load, _, net = network(str(Path(repo) / "segnext"), checkpoint, device)
    predictor = load("isegm.inference.predictor").BasePredictor
    return Model(SegnextSession, load, lambda: predictor(net), options)


# SAM and systems built on it: an image is encoded once, and clicks are prompts. Their code thresholds logits at 0. The
# low-resolution logits of the kept mask go into the next call.


class SamSession:
    """One image, uint8 (height, width, 3), RGB, with the peer's predictor; `more` goes to each prediction.

    Options are `candidates` (masks at click 1: 3 or 1), `later` (masks at later clicks if `candidates` is 3: 3 or 1)
    and `feedback` (whether logits are fed back).
    """

    def __init__(self, make: Any, options: dict[str, Any], more: dict[str, Any], image: Any) -> None:
        self.predictor, self.more = make(), more
        self.first, self.feedback = int(options["candidates"]) == 3, bool(options["feedback"])
        self.later = self.first and int(options["later"]) == 3
        self.predictor.set_image(image)
        self.restart()

    def restart(self) -> None:
        self.logits: Any = None
        self.kept: int | None = None

    def predict(self, clicks: Any) -> Any:
        points = np.array([(x, y) for x, y, _ in clicks], dtype=np.float64)
        labels = np.array([int(positive) for _, _, positive in clicks])
        again = self.kept is not None and self.feedback
        masks, scores, self.logits = self.predictor.predict(
            point_coords=points,
            point_labels=labels,
            mask_input=self.logits[self.kept : self.kept + 1] if again else None,  # type: ignore[operator]
            multimask_output=self.first if len(clicks) == 1 else self.later,
            **self.more,
        )
        self.kept = int(np.argmax(scores))
        return np.asarray(masks) > 0, scores

    def keep(self, index: int) -> None:
        """Choose the mask whose logits are fed back; by default the one with the best score."""
        self.kept = index


def sam(repo: str, checkpoint: str, options: dict[str, Any], device: str, more: Any = lambda options: {}) -> Model:
    """SAM (Kirillov and others 2023), github.com/facebookresearch/segment-anything."""
    peer = enter(repo, "segment_anything")("segment_anything")
    net = peer.sam_model_registry[options["backbone"]](checkpoint=checkpoint).to(device)
    net.eval()
    return Model(SamSession, lambda: peer.SamPredictor(net), options, more(options))


def sam_hq(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """SAM-HQ (Ke and others 2023), github.com/SysCV/sam-hq.

    The network chooses the best of three masks itself, so there is one candidate.
    """
    return sam(repo, checkpoint, options, device, lambda options: {"hq_token_only": bool(options["hq_only"])})


def sam2(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """SAM 2 (Ravi and others 2024) on images, github.com/facebookresearch/sam2."""
    load = enter(repo, "sam2")
    net = load("sam2.build_sam").build_sam2(options["config"], checkpoint, device=device)
    make = load("sam2.sam2_image_predictor").SAM2ImagePredictor
    return Model(SamSession, lambda: make(net), options, {})


class SemanticSamSession:
    """One image: six masks with scores for the last positive click, since the system takes a single click."""

    def __init__(self, load: Any, predictor: Any, device: str, image: Any) -> None:
        self.torch, self.predictor, self.size = load("torch"), predictor, image.shape[:2]
        self.resize = load("semantic_sam.modules").sem_seg_postprocess
        pillow, transforms = load("PIL.Image"), load("torchvision.transforms")
        shrink = transforms.Resize(640, interpolation=pillow.BICUBIC)  # its short side
        self.small = np.array(shrink(pillow.fromarray(image)))
        self.planes = self.torch.from_numpy(self.small).permute(2, 0, 1).to(device)

    def predict(self, clicks: Any) -> Any:
        """Masks of the last positive click in `clicks`, (x, y, positive) each: bool (6, height, width), and scores."""
        height, width = self.size
        x, y = [(x, y) for x, y, positive in clicks if positive][-1]
        with self.torch.no_grad():
            masks, scores = self.predictor.predict(self.small, self.planes, [[x / width, y / height]])
            whole = self.resize(masks, self.small.shape[:2], height, width)
        return (whole > 0).cpu().numpy(), scores.cpu().numpy().reshape(-1)


def semantic_sam(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """Semantic-SAM (Li, Zhang, Sun and others 2023), github.com/UX-Decoder/Semantic-SAM.

    Its code calls `.cuda()` everywhere; on the CPU these calls are ignored. Without its compiled operator, it uses its
    own version in PyTorch.
    """
    load = enter(repo, "semantic_sam")
    without_gpu(load("torch"), device)
    operator = "MultiScaleDeformableAttention"
    if importlib.util.find_spec(operator) is None:
        sys.modules[operator] = type(sys)(operator)  # fails when called
    peer = load("semantic_sam")
    config = f"{repo}/configs/semantic_sam_only_sa-1b_swin{options['backbone']}.yaml"
    described = load("utils.arguments").load_opt_from_config_file(config)
    described["MODEL"]["BACKBONE"]["LOAD_PRETRAINED"] = False  # a download of weights that the checkpoint replaces
    net = load("semantic_sam.BaseModel").BaseModel(described, peer.build_model(described)).from_pretrained(checkpoint)
    return Model(SemanticSamSession, load, peer.SemanticSAMPredictor(net.eval().cuda()), device)


def without_gpu(torch: Any, device: str) -> None:
    """On the CPU, make `.cuda()` and `.to("cuda")` return the tensor or module unchanged."""
    if device == "cpu":
        torch.Tensor.cuda = torch.nn.Module.cuda = lambda this, *given, **more: this
        move = torch.Tensor.to
        torch.Tensor.to = lambda this, *given, **more: this if given == ("cuda",) else move(this, *given, **more)


class FocsamSession:
    """One image, encoded once; at click 2 its encoding is refined around the object found at click 1.

    Masks are bool: logits above 0.
    """

    def __init__(self, load: Any, net: Any, image: Any) -> None:
        self.torch, self.net, self.size = load("torch"), net, image.shape[:2]
        self.modes = load("engine.utils.click")
        planes = self.torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))  # mmseg reads BGR
        self.samples = [load("mmseg.structures").SegDataSample()]
        self.image = net.data_preprocessor({"inputs": [planes], "data_samples": self.samples})["inputs"]
        self.side = int(net.test_cfg["target_size"])
        with self.torch.no_grad():
            self.square = net.resize_and_pad_to_target_size(self.image, self.side)
            self.first = self.encoded = net.preprocess_inputs(self.square, self.samples)
        net.intertest_init()
        self.logits: Any = None

    def predict(self, clicks: Any) -> Any:
        modes, net = self.modes, self.net
        points = [(y, x, modes.CLK_POSITIVE if positive else modes.CLK_NEGATIVE) for x, y, positive in clicks]
        with self.torch.no_grad():
            self.encoded, self.logits = net.intertest_predict(
                inputs=self.image,
                data_samples=self.samples,
                resized_padded_inputs=self.square,
                image_embeds=self.encoded,
                ori_image_embeds=self.first,
                step=len(clicks) - 1,
                prev_logits=self.logits,
                points=points,
            )
            whole = net.interpolate(self.logits, self.square.shape[-2:])
            whole = net.crop_and_resize_to_original_size(whole, self.image.shape[-2:], self.side)
        height, width = self.size
        return (whole[0, :, :height, :width] > 0).cpu().numpy(), None


def focsam(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """FocSAM (Huang, Lai, Ji and others 2024), github.com/YouHuang67/focsam.

    The checkpoint's folder also contains the configuration (`.py`), as in the authors' tools.
    """
    sys.path.insert(0, str(Path(repo).resolve() / "mmsegmentation"))
    load = enter(repo, "focsam")
    complete_operators(load)
    load("focsam")
    config = load("mmengine.config").Config.fromfile(configuration_of(checkpoint), import_custom_modules=False)
    load("mmengine.registry").init_default_scope("mmseg")
    wanted = dict(config.model, image_embed_loader=None, remove_backbone=False)
    wanted.setdefault("data_preprocessor", config.data_preprocessor)
    net = load("mmseg.registry").MODELS.build(wanted).to(device)
    load("mmengine.runner").load_checkpoint(net, checkpoint, map_location="cpu")
    return Model(FocsamSession, load, net.eval())


def complete_operators(load: Any) -> None:
    """If mmcv was built without its operators, use torchvision's equivalent deformable convolution."""
    if hasattr(load("mmcv._ext"), "__file__"):
        return

    def make(*sizes: int, deform_groups: int = 1, **options: Any) -> Any:
        return load("torchvision.ops").DeformConv2d(*sizes, **options)

    load("mmcv.ops").ModulatedDeformConv2d = make


def configuration_of(checkpoint: str) -> str:
    """The only Python file next to a checkpoint."""
    files = sorted(Path(checkpoint).parent.glob("*.py"))
    if len(files) != 1:
        raise FileNotFoundError(f"{len(files)} .py files next to {checkpoint}; put only its configuration there")
    return str(files[0])


# Stateless networks: those that get all points of a fixed budget at once, and FCANet.


class StatelessSession:
    """One image; `answer` maps the image and all clicks to a mask (height, width), bool or float in [0, 1]."""

    def __init__(self, answer: Any, image: Any) -> None:
        self.answer, self.image = answer, image

    def predict(self, clicks: Any) -> Any:
        mask = self.answer(self.image, clicks)
        return (mask if mask.dtype == np.bool_ else np.clip(mask, 0, 1).astype(np.float32))[None], None


def dextr(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """DEXTR (Maninis, Caelles, Pont-Tuset, Van Gool 2018), github.com/scaelles/DEXTR-PyTorch: extreme points."""
    load, side, pad = enter(repo, "networks"), options["side"], options["pad"]
    torch, network = load("torch"), load("networks.deeplab_resnet").resnet101(1, nInputChannels=4, classifier="psp")
    weights = torch.load(checkpoint, map_location="cpu")
    network.load_state_dict({name.replace("module.", "", 1): value for name, value in weights.items()})
    network.to(device).eval()

    def answer(image: Any, clicks: Any) -> Any:
        helpers = load("dataloaders.helpers")
        points = np.array([[x, y] for x, y, _ in clicks])
        box = helpers.get_bbox(image, points=points, pad=pad, zero_pad=True)
        crop = helpers.crop_from_bbox(image, box, zero_pad=True)
        resized = helpers.fixed_resize(crop, (side, side)).astype(np.float32)
        scale = np.array([side / float(crop.shape[1]), side / float(crop.shape[0])])
        placed = ((points - points.min(axis=0) + pad) * scale).astype(int)
        heat = helpers.cstm_normalize(helpers.make_gt(resized, placed, sigma=options["sigma"]), 255)
        both = np.concatenate((resized, heat[:, :, None]), axis=2).transpose((2, 0, 1))[None]
        with torch.no_grad():
            found = network(torch.from_numpy(both.astype(np.float32)).to(device))
            found = torch.nn.functional.interpolate(found, size=(side, side), mode="bilinear", align_corners=True)
        probability = torch.sigmoid(found)[0, 0].cpu().numpy()
        return helpers.crop2fullmask(probability, box, im_size=image.shape[:2], zero_pad=True, relax=pad)

    return Model(StatelessSession, answer)


def iog(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """IOG (Zhang, Liew, Wei, Wei, Zhao 2020), github.com/shiyinzhang/Inside-Outside-Guidance.

    One inside point and two corners of the box. The authors' evaluation takes the box from the resized mask; here the
    box itself is resized, which differs by one pixel only if a tip of the object is hardly a pixel wide.
    """
    load, side, relax = enter(repo, "networks"), options["side"], options["relax"]
    torch, network = (
        load("torch"),
        load("networks.mainnetwork").Network(
            nInputChannels=5, num_classes=1, backbone="resnet101", output_stride=16, sync_bn=None, freeze_bn=False
        ),
    )
    network.load_state_dict(torch.load(checkpoint, map_location="cpu"))
    network.to(device).eval()

    def answer(image: Any, clicks: Any) -> Any:
        helpers, linear = load("dataloaders.helpers"), load("cv2").INTER_LINEAR
        inside, first, last = (np.array([x, y]) for x, y, _ in clicks)
        box = helpers.get_bbox(image, points=np.array([first, last]), pad=relax, zero_pad=True)
        crop = helpers.crop_from_bbox(image.astype(np.float32), box, zero_pad=True)
        resized = helpers.fixed_resize(crop, (side, side), flagval=linear)
        points = crop_points(inside, first, last, relax, options["margin"], side)
        maps = helpers.make_gt(resized[..., 0], points, sigma=options["sigma"], one_mask_per_point=False)
        maps = 255.0 * (maps - maps.min()) / (maps.max() - maps.min() + 1e-10)
        both = np.concatenate((resized, maps), axis=2).transpose((2, 0, 1))[None].astype(np.float32)
        with torch.no_grad():
            fine = network(torch.from_numpy(both).to(device))[-1]
        found = 1 / (1 + np.exp(-fine[0, 0].cpu().numpy()))
        return helpers.crop2fullmask(found, box, im_size=image.shape[:2], zero_pad=True, relax=0, mask_relax=False)

    return Model(StatelessSession, answer)


def crop_points(inside: Any, first: Any, last: Any, relax: int, margin: int, side: int) -> Any:
    """The inside point and the resized box's four corners, moved outwards, (x, y) in the square: int (5, 2)."""
    cv2, size = importlib.import_module("cv2"), last - first + 1 + 2 * relax
    box = np.pad(np.ones(last[::-1] - first[::-1] + 1, dtype=np.float32), relax)
    rows, columns = np.nonzero(cv2.resize(box, (side, side), interpolation=cv2.INTER_LINEAR) > 0.5)
    left, top = max(columns.min() - margin, 0), max(rows.min() - margin, 0)
    right, bottom = min(columns.max() + margin, side), min(rows.max() + margin, side)
    placed = np.round((inside - first + relax + 0.5) * (side / size) - 0.5)
    return np.array([placed, [left, top], [left, bottom], [right, top], [right, bottom]]).astype(int)


# FCANet (Lin, Zhang, Chen, Cheng, Lu 2020) and FocusCut (Lin, Duan, Zhang, Guo, Cheng 2022), github.com/frazerlin.
# Their code thresholds both at 0.5.


def click_array(clicks: Any) -> Any:
    """Clicks for FCANet and FocusCut: int64 (clicks, 3) of x, y, and 1 for positive or 0 for negative."""
    return np.array([(x, y, int(positive)) for x, y, positive in clicks], dtype=np.int64)


def fcanet(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """FCANet; the authors' code supports the CPU and the first GPU."""
    core, on_gpu = enter(repo, "core")("core"), device != "cpu"
    net = core.init_model("fcanet", options["backbone"], checkpoint, if_cuda=on_gpu)

    def answer(image: Any, clicks: Any) -> Any:
        integrity = bool(options["integrity"])
        return core.predict(net, image, click_array(clicks), if_sis=integrity, if_cuda=on_gpu) == 1

    return Model(StatelessSession, answer)


class FocusCutSession:
    """One image: the mask so far is fed back, and crops around earlier clicks are segmented again."""

    def __init__(self, asking: Any, net: Any, settings: dict[str, Any], image: Any) -> None:
        self.asking, self.net, self.settings = asking, net, settings
        self.mask = np.zeros(image.shape[:2], dtype=np.uint8)
        size = np.array([image.shape[1], image.shape[0]])
        self.sample = {"img": image, "pre_pred": self.mask, "meta": {"id": "", "source_size": size}}
        self.focused: list[dict[str, Any]] = []

    def predict(self, clicks: Any) -> Any:
        points = click_array(clicks)
        whole = (self.settings, self.net, self.sample, points)
        if len(points) == 1 and self.settings["zoom_in"] == 0:
            self.asking.predict_wo(*whole)  # gives the mask for the first zoom-in
        mask, values = self.asking.predict_wo(*whole)
        if len(points) > 1 and self.settings["hr_val"]:
            self._focus(points, mask)
        if self.focused:
            mask = self.asking.predict_hr_new_final(*whole, self.focused, pred=mask, result=values)
        self.mask = mask
        return mask[None] == 1, None

    def _focus(self, points: Any, mask: Any) -> None:
        """From now on segment a crop around the last click, if the peer's rule asks for it."""
        click = tuple(points[-1])
        radius, needed = self.asking.cal_expand_r_new_final(click, self.mask, mask)
        if not needed:
            return
        names = ("pre_pred_hr", "seq_points_hr", "hr_result_src", "hr_result_count_src", "img_hr", "pred_hr")
        place = {"point_num": len(points), "pt_hr": click, "expand_r": radius, "gt_hr": None}
        self.focused.append({**dict.fromkeys(names), **place})


def focuscut(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """FocusCut; the authors' code calls `.cuda()` everywhere, which is ignored on the CPU."""
    load = enter(repo, "inference")
    torch = load("torch")
    without_gpu(torch, device)
    settings = _settings(load, checkpoint, options)
    net = load("model.hrcnet_base.my_net").MyNet(
        output_stride=settings["output_stride"],
        if_sync_bn=settings["sync_bn"],
        special_lr=settings["special_lr"],
        size=abs(settings["ref_size"]),
        aux_parameter=settings["aux_parameter"],
    )
    net.load_state_dict(torch.load(checkpoint, map_location="cpu"))
    net.to(device).eval()
    return Model(FocusCutSession, load("inference"), net, settings)


def _settings(load: Any, checkpoint: str, options: dict[str, Any]) -> dict[str, Any]:
    """Settings from the peer's own command-line parser, for our options."""
    given, size = sys.argv, str(options["size"])
    arguments = ["-v", "-r", checkpoint, "-ap", f"backbone='{options['backbone']}',pretrained=False"]
    arguments += ["-hrvs", f"pfs={int(options['rounds'])}", "-es", size, "-hrs", size]
    arguments += ["-hrv"] * bool(options["focus"]) + ["-ef"] * bool(options["flip"])
    sys.argv = ["main.py", *arguments]
    try:
        settings: dict[str, Any] = load("utils").create_parser()
    finally:
        sys.argv = given
    return settings


class InterformerSession:
    """One image, encoded once. Each click marks pixels in a label map, together with the previous mask.

    Masks are bool: the argmax over the two classes, equivalent to a threshold of 0.5.
    """

    def __init__(self, load: Any, net: Any, options: dict[str, Any], device: str, image: Any) -> None:
        self.torch, self.net, self.options, self.size = load("torch"), net, options, image.shape[:2]
        mmcv = load("mmcv")
        mean, deviation = np.array([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]], dtype=np.float32)
        normal = mmcv.imnormalize(image, mean, deviation, to_rgb=False)
        padded = mmcv.impad_to_multiple(normal, int(options["divisor"]), pad_val=0)
        with self.torch.no_grad():
            self.image = self.torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1)))[None].to(device)
            self.encoded = net.backbone(self.image)
        unknown = load("interformer.utils").REF_UNKNOWN
        shape = (1, 1, *self.image.shape[2:])
        self.marks = self.torch.full(shape, unknown, dtype=self.torch.int64, device=device)

    def predict(self, clicks: Any) -> Any:
        x, y, positive = clicks[-1]
        net, options = self.net, self.options
        points = [[(y, x, "positive" if positive else "negative")]]
        with self.torch.no_grad():
            marks = net.update_ref_label_by_point_lists(
                self.marks, points, float(options["inner_radius"]), float(options["outer_radius"])
            )
            answer = net.encode_decode(self.image, None, x=self.encoded, ref_label=marks)
            mask = answer.argmax(dim=1, keepdim=True)
            self.marks = net.update_ref_label_by_prediction(marks, mask)
        height, width = self.size
        return mask[0, :, :height, :width].cpu().numpy() == 1, None


def interformer(repo: str, checkpoint: str, options: dict[str, Any], device: str) -> Model:
    """InterFormer; the checkpoint's folder also contains the configuration (`.py`), as in the authors' tools."""
    load = enter(repo, "interformer")
    mmcv = load("mmcv")
    load("interformer.segmentors")
    config = mmcv.Config.fromfile(configuration_of(checkpoint))
    config.model.pretrained = None
    config.model.train_cfg = None
    net = load("mmseg.models").build_segmentor(config.model, test_cfg=config.get("test_cfg"))
    load("mmcv.runner").load_checkpoint(net, checkpoint, map_location="cpu")
    net = load("mmcv.cnn.utils").revert_sync_batchnorm(net).to(device)
    net.eval()
    return Model(InterformerSession, load, net, options, device)


LOADERS: dict[str, Callable[..., Any]] = {
    "ritm": partial(plain, ritm),
    "focalclick": partial(plain, focalclick),
    "cdnet": partial(plain, cdnet),
    "emcclick": partial(plain, emcclick),
    "fcfi": partial(plain, fcfi, session=FcfiSession),
    "fbrs": fbrs,
    "simpleclick": plain_vit,
    "graco": graco,
    "cfr_icl": partial(plain_vit, predictor_options=cascade),
    "piclick": piclick,
    "segnext": segnext,
    "sam": sam,
    "sam_hq": sam_hq,
    "sam2": sam2,
    "semantic_sam": semantic_sam,
    "focsam": focsam,
    "dextr": dextr,
    "iog": iog,
    "fcanet": fcanet,
    "focuscut": focuscut,
    "interformer": interformer,
}
"""Name -> load(repo, checkpoint, options, device), the same function as in a user's own adapter."""
