"""Ours for the parts of `timm` and `mmcv` that peers use to predict, by module name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def layers() -> dict[str, Any]:
    """`timm.models.layers`."""
    import torch  # noqa: PLC0415

    class DropPath(torch.nn.Module):
        """Nothing is dropped when predicting."""

        def __init__(self, drop_prob: float = 0.0) -> None:
            super().__init__()

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            """The same."""
            return values

    return {"DropPath": DropPath, "to_2tuple": pair, "trunc_normal_": torch.nn.init.trunc_normal_}


def pair(value: Any) -> tuple[Any, ...]:
    """One value twice, or a sequence as a tuple."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value, value)


def runner() -> dict[str, Any]:
    """`mmcv.runner`."""
    import torch  # noqa: PLC0415

    class BaseModule(torch.nn.Module):
        """A module that is told how to be initialised."""

        def __init__(self, init_cfg: Any = None) -> None:
            super().__init__()
            self.init_cfg = init_cfg

    class ModuleList(BaseModule, torch.nn.ModuleList):
        """Modules in order."""

        def __init__(self, modules: Any = None, init_cfg: Any = None) -> None:
            torch.nn.ModuleList.__init__(self, modules)

    def as_it_is(*arguments: Any, **options: Any) -> Callable[[Any], Any]:
        return lambda function: function

    return {
        "BaseModule": BaseModule,
        "ModuleList": ModuleList,
        "auto_fp16": as_it_is,
        "force_fp32": as_it_is,
        "get_dist_info": lambda: (0, 1),
    }


def cnn() -> dict[str, Any]:
    """`mmcv.cnn`."""
    import torch  # noqa: PLC0415

    nn = torch.nn
    activations = {"ReLU": nn.ReLU, "GELU": nn.GELU, "LeakyReLU": nn.LeakyReLU}
    norms = {"BN": nn.BatchNorm2d, "SyncBN": nn.BatchNorm2d}

    class ConvModule(nn.Module):
        """Convolution, normalisation and activation; the convolution has a bias where nothing normalises."""

        def __init__(
            self,
            in_channels: int,
            out_channels: int,
            kernel_size: Any,
            stride: Any = 1,
            padding: Any = 0,
            dilation: Any = 1,
            groups: int = 1,
            bias: Any = "auto",
            conv_cfg: Any = None,
            norm_cfg: Any = None,
            act_cfg: Any = "ReLU",
            **options: Any,
        ) -> None:
            super().__init__()
            bias = norm_cfg is None if bias == "auto" else bias
            sizes = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
            self.conv = nn.Conv2d(*sizes, bias=bias)
            self.bn = norms[norm_cfg["type"]](out_channels) if norm_cfg else nn.Identity()
            name = act_cfg["type"] if isinstance(act_cfg, dict) else act_cfg
            self.activate = activations[name]() if name else nn.Identity()

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            """One after another."""
            return self.activate(self.bn(self.conv(values)))

    class DepthwiseSeparableConvModule(nn.Module):
        """A convolution of each channel alone, then one of all channels at each pixel."""

        def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, **options: Any) -> None:
            super().__init__()
            shared = {key: options.pop(key) for key in ("norm_cfg", "act_cfg") if key in options}
            one = {**options, **shared, "groups": in_channels}
            self.depthwise_conv = ConvModule(in_channels, in_channels, kernel_size, **one)
            self.pointwise_conv = ConvModule(in_channels, out_channels, 1, **shared)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            """One after the other."""
            return self.pointwise_conv(self.depthwise_conv(values))

    return {"Conv2d": nn.Conv2d, "ConvModule": ConvModule, "DepthwiseSeparableConvModule": DepthwiseSeparableConvModule}


def base_module() -> dict[str, Any]:
    """`mmcv.runner.base_module`, whose classes are those of `mmcv.runner`."""
    import mmcv.runner  # noqa: PLC0415

    return {name: getattr(mmcv.runner, name) for name in ("BaseModule", "ModuleList")}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "timm.models.layers": layers,
    "mmcv.runner": runner,
    "mmcv.runner.base_module": base_module,
    "mmcv.cnn": cnn,
    "mmcv.utils": lambda: {"to_2tuple": pair},
}
