"""From parameters to pixels: the camera's rays, the scene that they meet, the light, the lens.

`trace` answers for any list of picture positions, each on its own; `render` asks for the pixel centres, and for four
more positions in every pixel on an edge. The mask is what the centres met.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from .anatomy import Anatomy
from .attached import paint_brim, paint_ears, paint_glasses, paint_knot
from .backdrop import make_backdrop
from .body import make_torso, paint_neck, paint_torso
from .camera import develop
from .canvas import Canvas
from .features import paint_beard, paint_brows, paint_eye, paint_mouth
from .foreground import occlude
from .geometry import Frame, Noise, Rays, StarSurface, turned
from .hair import paint_hair
from .head import make_head
from .light import GAMMA, shade, surroundings
from .mane import make_mane, paint_mane
from .parameters import FaceParameters
from .skin import LABEL, Spot, paint_skin, paint_worn

HEAD_HEIGHT = 23.0
"""cm from crown to chin."""

_NECK_TOP = (0.0, -7.0, -2.0)
"""The head turns about this point, cm."""

_WITHIN_PIXEL = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
"""Where a pixel on an edge is looked at again, pixels from its centre: a rotated grid."""


_LIGHT_OF_CODE = (np.arange(256, dtype=np.float32) / 255) ** np.float32(GAMMA)
_LIGHT_OF_CODE *= 1 + _LIGHT_OF_CODE**6
"""8-bit code -> linear light; what is white in a background is twice as bright as paper, as skies and lamps are."""


class Scene(NamedTuple):
    """All that does not depend on where one looks."""

    parameters: FaceParameters
    anatomy: Anatomy
    noise: Noise
    head: Frame
    body: Frame
    surface: StarSurface
    mane: StarSurface | None
    torso: StarSurface
    camera: Float32[np.ndarray, "3 1"]
    behind: Float32[np.ndarray, "3 4"]


def make_scene(parameters: FaceParameters, backdrop: UInt8[np.ndarray, "size size 3"]) -> Scene:
    """The solids of a face and where they and the camera stand, cm, and the light that the background
    throws on them.
    """
    p = parameters
    anatomy, noise = Anatomy(p), Noise(p.texture_seed)
    head = turned(p.yaw, p.pitch, p.roll, _NECK_TOP)
    body = turned(p.body_yaw, 0.0, 0.25 * p.roll, _NECK_TOP)
    half_view = np.tan(np.radians(0.5 * p.field_of_view))
    visible = HEAD_HEIGHT / p.head_share
    middle = head.points_out(np.zeros((3, 1), dtype=np.float32))
    camera = middle + np.array(
        [[-p.centre_x * visible / 2], [-p.centre_y * visible / 2], [visible / 2 / half_view]], dtype=np.float32
    )
    surface = make_head(p, anatomy, noise)
    mane, torso = make_mane(p, noise), make_torso(p, noise)
    return Scene(
        p, anatomy, noise, head, body, surface, mane, torso, camera.astype(np.float32), surroundings(backdrop)
    )


def camera_rays(scene: Scene, position: Float32[np.ndarray, "2 n"]) -> Rays:
    """The rays through these picture positions: (-1, -1) is the lower left corner, (1, 1) the upper right one."""
    slope = np.float32(np.tan(np.radians(0.5 * scene.parameters.field_of_view)))
    direction = np.stack([position[0] * slope, position[1] * slope, np.full_like(position[0], -1)])
    direction /= np.sqrt((direction**2).sum(0))
    return Rays(scene.camera, direction)


def trace(scene: Scene, position: Float32[np.ndarray, "2 n"]) -> tuple[Float32[np.ndarray, "3 n"], Canvas]:
    """Linear light and the canvas (labels, depths) at these picture positions."""
    p = scene.parameters
    canvas = Canvas(camera_rays(scene, position))
    _paint_head(canvas, scene)
    paint_ears(canvas, p, scene.head, scene.noise)
    paint_neck(canvas, p, scene.body, scene.noise)
    paint_torso(canvas, p, scene.body, scene.torso, scene.noise)
    paint_mane(canvas, p, scene.head, scene.mane, scene.noise)
    paint_knot(canvas, p, scene.head, scene.noise)
    paint_brim(canvas, p, scene.head)
    paint_glasses(canvas, p, scene.anatomy, scene.head)
    return shade(canvas, p, scene.head, (scene.surface, scene.mane), scene.noise, scene.behind), canvas


def _paint_head(canvas: Canvas, scene: Scene) -> None:
    """The star-shaped head; where the outline runs through hair or beard, single strands end short of it and the ray
    goes on.
    """
    p, surface = scene.parameters, scene.surface
    rays = scene.head.rays_in(canvas.rays)
    depth = surface.intersect(rays, canvas.depth)
    chosen = np.flatnonzero(np.isfinite(depth))
    own = rays.take(chosen)
    point = own.at(depth[chosen])
    found = surface.look_up(point)
    direction = point / np.sqrt((point**2).sum(0))
    normal = np.stack([found["nx"], found["ny"], found["nz"]])
    facing = -(normal * own.direction).sum(0)
    count = chosen.size
    spot = Spot(
        x=direction[0] * found["base"], y=direction[1] * found["base"], direction=direction,
        azimuth=np.degrees(np.arctan2(np.abs(direction[0]), direction[2])), facing=np.clip(facing, 0, 1),
        label=np.zeros(count, dtype=np.uint8), albedo=np.zeros((3, count), dtype=np.float32),
        shine=np.zeros(count, dtype=np.float32), tilt=np.zeros((3, count), dtype=np.float32),
    )  # fmt: skip
    _paint_surface(scene, spot)
    thick = {"afro": 0.5, "curly": 0.5}.get(p.hair_style, 0.3) * (0.4 + p.hair_raggedness)
    grain = 1 / (1.2 * p.hair_strand)
    wisps = scene.noise(p.lateral * grain * point[0], grain * point[1], 70) * 0.6 + 0.4 * scene.noise(
        p.lateral * point[0], point[1] + point[2], 71
    )
    loose = np.isin(spot.label, [LABEL["hair"], LABEL["beard"]]) & (facing < thick * wisps)
    keep = np.flatnonzero(~loose)
    openness = np.clip(1 - 0.55 * np.clip(found["hollow"], -0.1, 1.2), 0.3, 1)
    openness *= 0.55 + 0.45 * np.clip((direction[1] + 0.95) / 0.5, 0, 1)
    bent = normal[:, keep] + spot.tilt[:, keep]
    bent = scene.head.vectors_out((bent / np.sqrt((bent**2).sum(0) + 1e-9)).astype(np.float32))
    canvas.put(
        chosen[keep], depth[chosen[keep]], spot.label[keep], spot.albedo[:, keep], bent,
        openness=openness[keep].astype(np.float32), shine=spot.shine[keep],
    )  # fmt: skip


def _paint_surface(scene: Scene, spot: Spot) -> None:
    """Give every spot on the head its label and colour, from the skin outwards; what comes later lies on top."""
    p, anatomy, noise = scene.parameters, scene.anatomy, scene.noise
    front = spot.direction[2] > 0.05
    paint_skin(p, anatomy, noise, spot)
    for eye in anatomy.eyes:
        paint_eye(p, eye, noise, spot, front)
    paint_brows(p, anatomy, noise, spot, front)
    paint_mouth(p, anatomy, noise, spot, front)
    paint_beard(p, anatomy, noise, spot, front)
    paint_hair(p, noise, spot)
    paint_worn(p, anatomy, noise, spot)


def render(
    parameters: FaceParameters, size: int, backdrop: UInt8[np.ndarray, "size size 3"] | None = None
) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size"]]:
    """The picture of a face (sRGB) and its mask (class ids of `labels.FACE`), `size` pixels on each side.

    Pure: the same bytes for the same arguments. The mask holds what each pixel's centre shows, and no pixel is
    ignored; the picture is anti-aliased. backdrop: what stands behind instead of what the parameters say. Raises
    ValueError for a size below 16.
    """
    if size < 16:
        raise ValueError(f"size is {size}; a face needs at least 16 pixels on a side.")
    if backdrop is None:
        backdrop = make_backdrop(parameters, size)
    scene = make_scene(parameters, backdrop)
    behind = _LIGHT_OF_CODE[backdrop.reshape(-1, 3).T]
    centre = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = (part.ravel() for part in np.meshgrid(centre, -centre))
    position = np.stack([x, y]).astype(np.float32)
    light, canvas = trace(scene, position)
    light = np.where(canvas.met(), light, behind)
    edge = np.flatnonzero(_edges(canvas, size))
    shifts = np.array(_WITHIN_PIXEL, dtype=np.float32).T * np.float32(2 / size)
    more, there = trace(scene, (position[:, None, edge] + shifts[:, :, None]).reshape(2, -1))
    more = np.where(there.met(), more, np.tile(behind[:, edge], len(_WITHIN_PIXEL))).reshape(3, len(_WITHIN_PIXEL), -1)
    light[:, edge] = (light[:, edge] + more.sum(1)) / np.float32(1 + len(_WITHIN_PIXEL))
    mask = canvas.label.reshape(size, size)
    image, mask = occlude(parameters, light.T.reshape(size, size, 3), mask)
    return develop(parameters, image), mask


def _edges(canvas: Canvas, size: int) -> Bool[np.ndarray, " n"]:
    """Pixels beside another label, or beside something much nearer or farther."""
    label = canvas.label.reshape(size, size)
    depth = np.where(np.isfinite(canvas.depth), canvas.depth, 1e4).reshape(size, size)
    edge = np.zeros((size, size), dtype=bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differs = (label[a] != label[b]) | (np.abs(depth[a] - depth[b]) > 1.5)
        edge[a] |= differs
        edge[b] |= differs
    return edge.ravel()
