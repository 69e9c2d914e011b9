"""The random augmentation of a training sample: ranges, their defaults and their limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from seg_recipe.runtime.errors import InputError

LIMITS = {
    "scale": (0.1, 10.0, "1 = the whole image"),
    "rotation": (0.0, 180.0, "degrees"),
    "shear": (0.0, 60.0, "degrees"),
    "translation": (0.0, 0.5, "share of the picture"),
    **dict.fromkeys(("flip", "grey", "blur", "noise", "jpeg"), (0.0, 1.0, "probability")),
    **dict.fromkeys(("brightness", "contrast", "saturation", "gamma"), (0.0, 0.9, "relative")),
}
"""Setting -> least, greatest and unit. Relative changes are below 1: a factor of 0 leaves nothing of the image."""


@dataclass(frozen=True)
class Augmentation:
    """The ranges of the random augmentation. 0 (or a scale of (1, 1)) turns a part off.

    scale: (least, greatest) zoom, log-uniform; 1 = the whole image squeezed to image_size.
    rotation, shear: greatest angle in degrees, either way, in the image's own proportions.
    translation: greatest shift of the centre, either way, as a share of the scaled width and height.
    flip: probability of the left-right mirror image.
    brightness, contrast, saturation, gamma: x is a factor (for gamma an exponent) from 1 - x to 1 + x. Brightness also
    has a factor from 1 - x/3 to 1 + x/3 for each channel: the colour of the light.
    grey, blur, noise, jpeg: probability of an image without colour, a box blur, Gaussian noise, JPEG artefacts.

    Values outside LIMITS are refused, by the name that a recipe has for the setting (`augment_rotation`).
    """

    scale: Sequence[float] = (0.5, 2.0)
    rotation: float = 30.0
    shear: float = 10.0
    translation: float = 0.15
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    gamma: float = 0.3
    grey: float = 0.1
    blur: float = 0.2
    noise: float = 0.2
    jpeg: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", tuple(self.scale))
        for name, (least, greatest, unit) in LIMITS.items():
            value = getattr(self, name)
            pair = value if name == "scale" else (value, value)
            if len(pair) != 2 or not least <= pair[0] <= pair[1] <= greatest:  # NaN too
                shown, wanted = (list(value), "[least, greatest], ") if name == "scale" else (f"{value:g}", "")
                raise InputError(f"augment_{name} is {shown}; wanted {wanted}{least:g} to {greatest:g} ({unit}).")
