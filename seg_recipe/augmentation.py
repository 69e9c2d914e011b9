"""What is drawn for each training sample: the ranges, their defaults and their limits."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from seg_recipe.runtime.errors import InputError

# setting: (least, greatest, unit). Relative settings stay below 1: a factor of 0 would leave nothing of the picture.
_LIMITS = {
    "rotation": (0.0, 180.0, "degrees"),
    "shear": (0.0, 60.0, "degrees"),
    "translation": (0.0, 0.5, "share of the picture"),
    **dict.fromkeys(("flip", "grey", "blur", "noise", "jpeg"), (0.0, 1.0, "probability")),
    **dict.fromkeys(("brightness", "contrast", "saturation", "gamma"), (0.0, 0.9, "relative")),
}
_SCALES = (0.1, 10.0)


@dataclass(frozen=True)
class Augmentation:
    """The ranges from which each training sample draws. 0 (or a scale of (1, 1)) turns a part off.

    scale: (least, greatest) zoom, 0.1-10, drawn log-uniformly; 1 = the whole picture squeezed to the square.
    rotation (0-180), shear (0-60): greatest angle in degrees, either way, in the picture's own proportions.
    translation: greatest shift of the centre, either way, as a share of the scaled width and height (0-0.5).
    flip: probability of the left-right mirror image.
    brightness, contrast, saturation, gamma: x draws a factor (for gamma an exponent) from 1 - x to 1 + x (0-0.9).
    Brightness also draws a factor of 1 - x/3 to 1 + x/3 for each channel: the colour of the light.
    grey, blur, noise, jpeg: probability of a picture without colour, a box blur, Gaussian noise, JPEG artefacts.

    Raises InputError that names the setting as a recipe does (`augment_rotation`), its value and its range.
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
        if len(self.scale) != 2 or not _SCALES[0] <= self.scale[0] <= self.scale[1] <= _SCALES[1]:
            raise InputError(
                f"augment_scale is {list(self.scale)}; wanted [least, greatest] in {_SCALES[0]:g}-{_SCALES[1]:g} (1 = "
                "the whole picture)."
            )
        for name in (field.name for field in fields(self) if field.name in _LIMITS):
            value, (least, greatest, unit) = getattr(self, name), _LIMITS[name]
            if not least <= value <= greatest:  # a NaN fails too
                raise InputError(f"augment_{name} is {value:g}; wanted {least:g} to {greatest:g} ({unit}).")
