"""Backbones of the package timm by name, with what the regressor asks of the built-in ones."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from pose3d.model.backbone import load_strictly

PREFIX = "timm:"
"""Before the name of a model in `model.backbone`."""


class TimmBackbone(nn.Module):
    """A model of timm without its classifier: images to globally pooled features.

    Nothing is downloaded: the weights start as timm starts them. Which normalisation of colours
    public weights expect, their model card says.

    Args:
        name: As in ``timm.list_models()``, without the prefix.

    Raises:
        ValueError: If timm is not installed, or knows no such model.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.net = _create(name)
        self.num_map_channels = int(self.net.num_features)
        # Some models widen the pooled feature before their classifier.
        self.num_features = int(
            getattr(self.net, "head_hidden_size", None) or self.net.num_features
        )
        described = getattr(self.net, "pretrained_cfg", None) or {}
        is_fixed = described.get("fixed_input_size", False)
        self.crop_size_px = tuple(described["input_size"][-2:]) if is_fixed else None
        """Height and width of the only crops that the model takes; None where it takes any."""

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch features"]:
        """Features of normalised RGB images, pooled as the model pools them.

        Raises:
            ValueError: If the model takes crops of another size only.
        """
        self._check_size(images)
        return self.net(images)

    def forward_map(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels map_height map_width"]:
        """The last map of normalised RGB images.

        Raises:
            ValueError: If the model takes crops of another size only, or answers with tokens or
                with channels last.
        """
        self._check_size(images)
        last_map = self.net.forward_features(images)
        if last_map.ndim != 4 or last_map.shape[1] != self.num_map_channels:
            raise ValueError(
                f"model.location_head=integral needs maps [batch {self.num_map_channels} height "
                f"width], and {PREFIX}{self.name} gives {list(last_map.shape)} (tokens, or "
                "channels last); choose a convolutional backbone or another location_head"
            )
        return last_map

    def pool(
        self, last_map: Float[Tensor, "batch channels map_height map_width"]
    ) -> Float[Tensor, "batch features"]:
        """Features of a last map."""
        return self.net.forward_head(last_map)

    def load_pretrained(self, path: str | Path) -> None:
        """Load a local file of timm's weights for this model, strictly, less the classifier.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file cannot be read, or names or shapes differ.
        """
        described = getattr(self.net, "pretrained_cfg", None) or {}
        classifier = described.get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        load_strictly(
            self.net,
            path,
            ignored=tuple(f"{name}." for name in names),
            name=f"{PREFIX}{self.name}",
            advice="choose the file of this model",
        )

    def _check_size(self, images: Tensor) -> None:
        size = tuple(images.shape[-2:])
        if self.crop_size_px is not None and size != self.crop_size_px:
            raise ValueError(
                f"{PREFIX}{self.name} takes crops of {self.crop_size_px[0]} px only, got "
                f"{size[0]} × {size[1]}; set data.input_size_px={self.crop_size_px[0]}"
            )


def _create(name: str) -> Any:
    if ":" in name:
        raise ValueError(
            f"model.backbone={PREFIX}{name} names a place, from which timm would download; name a "
            "model of timm.list_models() and give its weights as a local file, model.pretrained"
        )
    try:
        import timm
    except (
        ImportError,
        RuntimeError,
    ) as error:  # RuntimeError: its torchvision is for another torch
        reason = " ".join(str(error).split())
        raise ValueError(
            f"model.backbone={PREFIX}{name} needs the package timm, which cannot be imported "
            f"({reason}); install the extra: pip install 'pose3d[timm]'"
        ) from error
    try:
        return timm.create_model(name, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise ValueError(
            f"timm cannot make model.backbone={PREFIX}{name}: {' '.join(str(error).split())}; "
            "timm.list_models() names those it knows"
        ) from error
