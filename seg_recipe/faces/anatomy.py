"""Where the parts of a face are: curves in face coordinates (x, y), cm, seen from the front; +x is the viewer's right,
+y up.

The origin lies in the middle of the head. On an average face: crown 12, hair line 7.6, brows 2.6, eyes 0.9, tip of the
nose -2.9, mouth -5.4, chin -10.2.
"""

import numpy as np

from .geometry import smoothstep
from .parameters import FaceParameters

EYE_LINE, BROW_LINE, NOSE_ROOT, NOSE_FOOT, MOUTH_LINE, CHIN, HAIR_LINE = 0.9, 2.55, 1.7, -3.3, -5.35, -10.2, 7.6
"""Heights on an average face, cm."""


class Eye:
    """One eye: `side` is +1 for the viewer's right, -1 for the left. Inside it where lower(x) < y < upper(x)."""

    def __init__(self, p: FaceParameters, side: int):
        self.side = side
        self.half = p.eye_width
        self.centre = (side * p.eye_spacing, EYE_LINE + 0.12 * side * p.asymmetry)
        self.tilt = side * float(np.tan(np.radians(p.eye_tilt)))
        self.open = p.lid_right if side > 0 else p.lid_left
        self.gaze = (p.gaze_x, p.gaze_y)

    def along(self, x: np.ndarray) -> np.ndarray:
        """Position between the corners: -1 at one, +1 at the other."""
        return (x - self.centre[0]) / self.half

    def axis(self, x: np.ndarray) -> np.ndarray:
        """Height of the line through the corners."""
        return self.centre[1] + self.tilt * (x - self.centre[0])

    def upper(self, x: np.ndarray) -> np.ndarray:
        """The upper lid's edge, highest a little to the nose's side of the middle."""
        s = self.along(x)
        arch = np.maximum(1 - s * s, 0) ** 0.7 * (1 - 0.16 * self.side * s)
        return self.axis(x) + (0.56 * self.open - 0.2 * max(0.0, 0.6 - self.open)) * arch

    def lower(self, x: np.ndarray) -> np.ndarray:
        """The lower lid's edge."""
        s = self.along(x)
        return self.axis(x) - (0.34 * min(1.0, 0.35 + 0.65 * self.open)) * np.maximum(1 - s * s, 0) ** 0.8

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """True between the lids."""
        return (np.abs(self.along(x)) < 1) & (y < self.upper(x)) & (y > self.lower(x))

    def iris_centre(self) -> tuple[float, float]:
        """The middle of the iris on an eyeball of radius 1.2 cm."""
        return (
            self.centre[0] + 1.15 * float(np.sin(np.radians(self.gaze[0]))),
            self.centre[1] + 0.1 + 1.0 * float(np.sin(np.radians(self.gaze[1]))),
        )


class Brow:
    """One eyebrow: a band around `line`, thick towards the nose and pointed at the temple; frowning pulls the inner
    end in and down.
    """

    def __init__(self, p: FaceParameters, side: int):
        self.side = side
        self.thickness = p.brow_thickness
        raised = p.brow_right if side > 0 else p.brow_left
        self.inner = p.eye_spacing - 1.8 - 0.25 * p.frown
        self.outer = p.eye_spacing + 1.75
        self.height = BROW_LINE + 0.9 * raised + 0.15 * side * p.asymmetry
        self.arch = p.brow_arch
        self.inner_drop = 0.25 + 0.65 * p.frown - 0.35 * max(raised, 0)

    def along(self, x: np.ndarray) -> np.ndarray:
        """0 at the inner end, 1 at the outer."""
        return (self.side * x - self.inner) / (self.outer - self.inner)

    def line(self, x: np.ndarray) -> np.ndarray:
        """Height of the middle of the brow."""
        s = np.clip(self.along(x), 0, 1)
        return (
            self.height
            - self.inner_drop * (1 - s) ** 2
            + self.arch * (0.75 * s - 1.25 * s**3)
            + 0.25 * (1 - self.arch) * s
        )

    def closeness(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """1 on the line, 0 at the edge of the band, negative outside."""
        s = self.along(x)
        half = self.thickness * np.clip(1.25 - 0.95 * s, 0.08, 1) * smoothstep(-0.06, 0.1, s)
        return np.where((s > 0) & (s < 1), 1 - np.abs(y - self.line(x)) / np.maximum(half, 0.02), -1)


class Mouth:
    """The lips' four edges, each a height over x; what lies between the two inner ones is the mouth's interior."""

    def __init__(self, p: FaceParameters):
        self.centre = (p.mouth_shift, MOUTH_LINE - 0.5 * p.nose_length)
        self.half = p.mouth_width * (1 + 0.14 * p.smile - 0.07 * p.jaw_open)
        self.lift = 0.75 * p.smile
        self.tilt = 0.09 * p.asymmetry
        self.gap_up, self.gap_down = 0.18 * p.jaw_open, 0.82 * p.jaw_open
        self.upper, self.lower = p.lip_upper, p.lip_lower
        self.teeth = 0.75 * p.teeth

    def along(self, x: np.ndarray) -> np.ndarray:
        """-1 at the viewer's left corner, +1 at the right one."""
        return (x - self.centre[0]) / self.half

    def _bow(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(1 - self.along(x) ** 2, 0)

    def line(self, x: np.ndarray) -> np.ndarray:
        """Where the shut lips would meet."""
        s = self.along(x)
        return (
            self.centre[1] + self.lift * s * s + self.tilt * (x - self.centre[0]) - 0.08 * np.exp(-((s / 0.12) ** 2))
        )

    def top_lip_bottom(self, x: np.ndarray) -> np.ndarray:
        """The top lip's lower edge."""
        return self.line(x) + self.gap_up * self._bow(x)

    def top_lip_top(self, x: np.ndarray) -> np.ndarray:
        """The top lip's upper edge, with Cupid's bow."""
        s = self.along(x)
        return self.top_lip_bottom(x) + self.upper * self._bow(x) * (
            0.78 + 0.3 * np.exp(-(((np.abs(s) - 0.2) / 0.2) ** 2))
        )

    def bottom_lip_top(self, x: np.ndarray) -> np.ndarray:
        """The bottom lip's upper edge."""
        return self.line(x) - self.gap_down * self._bow(x) ** 0.7

    def bottom_lip_bottom(self, x: np.ndarray) -> np.ndarray:
        """The bottom lip's lower edge."""
        return self.bottom_lip_top(x) - self.lower * self._bow(x) ** 0.62


class Nose:
    """The nose's outline seen from the front: narrow between the eyes, widest at the wings."""

    def __init__(self, p: FaceParameters):
        self.foot = NOSE_FOOT - 0.8 * p.nose_length
        self.tip = self.foot + 0.55
        self.root = NOSE_ROOT
        self.half_wings = 1.72 * p.nose_width
        self.half_bridge = 0.6 + 0.25 * p.nose_width
        self.flare = 0.12 * max(p.smile, 0)

    def half_width(self, y: np.ndarray) -> np.ndarray:
        """Half the width at height y."""
        middle = 0.5 * (self.tip + self.root)
        heights = [
            self.foot - 0.35,
            self.foot,
            self.foot + 0.3,
            self.tip,
            self.tip + 0.9,
            middle,
            self.root - 0.5,
            self.root,
        ]
        wings = self.half_wings + self.flare
        slope = 0.5 * (wings + self.half_bridge)
        widths = [
            0.3 * wings,
            0.76 * wings,
            0.95 * wings,
            wings,
            0.95 * wings,
            1.05 * slope,
            self.half_bridge,
            0.6 * self.half_bridge,
        ]
        return np.interp(y, heights, widths).astype(np.float32)

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """True on the nose."""
        septum = self.foot - 0.28 * np.clip(1 - (np.abs(x) / 1.0), 0, 1)
        return (y > septum) & (y < self.root) & (np.abs(x) < self.half_width(y))

    def nostril(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """1 in the middle of a nostril, 0 away from it."""
        return np.exp(-(((np.abs(x) - 0.5 * self.half_wings) / 0.36) ** 2) - ((y - self.foot - 0.16) / 0.2) ** 2)


class Anatomy:
    """All parts of one face."""

    def __init__(self, p: FaceParameters):
        self.eyes = (Eye(p, 1), Eye(p, -1))
        self.brows = (Brow(p, 1), Brow(p, -1))
        self.mouth = Mouth(p)
        self.nose = Nose(p)
        self.chin = CHIN - p.chin_length - 0.75 * p.jaw_open


def hair_line(p: FaceParameters, azimuth: np.ndarray) -> np.ndarray:
    """The height above which hair grows, cm, by the angle from the middle of the face (degrees, 0-180), on
    the skull.
    """
    front = HAIR_LINE + p.hair_line
    back = 3.4 * p.hair_recession
    bare = 1.0 - p.hair_fringe
    lowest = BROW_LINE + 0.9
    brow = lowest + bare * (front - lowest) if p.hair_fringe else front
    ears = -4.5 * p.hair_over_ears
    angles = [0, 22, 38, 54, 66, 76, 84, 96, 112, 140, 180]
    heights = [
        brow,
        brow + bare * 0.3 * back,
        brow + bare * (back - 0.5),
        4.2 + 0.4 * bare,
        2.2,
        -0.6 + 0.5 * ears,
        0.6 + ears,
        1.6 + ears,
        -4.5,
        -6.8,
        -7.2,
    ]
    return np.interp(azimuth, angles, heights).astype(np.float32)
