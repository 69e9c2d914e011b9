"""What the rays have met so far: the nearest surface's label, colour, normal and how light reaches it."""

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from .geometry import Rays
from .parameters import Colour


def paint(colour: Colour, count: int) -> Float32[np.ndarray, "3 n"]:
    """One colour for `count` points."""
    return np.repeat(np.array(colour, dtype=np.float32)[:, None], count, axis=1)


def blend(
    under: Float32[np.ndarray, "3 n"], over: Colour | Float32[np.ndarray, "3 #n"], share: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, "3 n"]:
    """`share` of the one colour over the other."""
    top = np.array(over, dtype=np.float32)
    return under + share * ((top[:, None] if top.ndim == 1 else top) - under)


class Canvas:
    """One entry per ray.

    depth: cm, infinity where nothing was met (label 0). albedo: sRGB, 0-1. open: share of the light around that
    arrives.
    """

    def __init__(self, rays: Rays):
        count = rays.direction.shape[1]
        self.rays = rays
        self.depth = np.full(count, np.inf, dtype=np.float32)
        self.label = np.zeros(count, dtype=np.uint8)
        self.albedo = np.zeros((3, count), dtype=np.float32)
        self.normal = np.zeros((3, count), dtype=np.float32)
        self.open = np.ones(count, dtype=np.float32)
        self.shine = np.zeros(count, dtype=np.float32)
        self.glare = np.zeros(count, dtype=np.float32)

    def put(
        self,
        chosen: Int64[np.ndarray, " m"],
        depth: Float32[np.ndarray, " m"],
        label: int | UInt8[np.ndarray, " m"],
        albedo: Float32[np.ndarray, "3 m"],
        normal: Float32[np.ndarray, "3 m"],
        *,
        openness: float | Float32[np.ndarray, " m"] = 1.0,
        shine: float | Float32[np.ndarray, " m"] = 0.0,
    ) -> None:
        """Show this surface where it is the nearest so far. `normal` is in world coordinates."""
        nearer = depth < self.depth[chosen]
        place = chosen[nearer]
        self.depth[place] = depth[nearer]
        self.label[place] = label if isinstance(label, int) else label[nearer]
        self.albedo[:, place] = albedo[:, nearer]
        self.normal[:, place] = normal[:, nearer]
        self.open[place] = openness if isinstance(openness, float) else openness[nearer]
        self.shine[place] = shine if isinstance(shine, float) else shine[nearer]

    def met(self) -> Bool[np.ndarray, " n"]:
        """True where a ray met anything."""
        return np.isfinite(self.depth)
