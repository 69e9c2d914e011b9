import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from seg_recipe.faces import FaceParameters, mirror, render, sample
from seg_recipe.faces.anatomy import Anatomy
from seg_recipe.faces.geometry import (
    Rays,
    StarSurface,
    ellipsoid_radius,
    meet_cone,
    meet_ellipsoid,
    table_directions,
    turned,
)
from seg_recipe.labels import FACE

LABEL = FACE.label2id

STUDIO = {"backdrop": "room", "occluder": "none", "noise": 0.0, "blur": 0.0, "motion": 0.0, "jpeg_quality": 100.0}


def middle_of(mask, name):
    """(column, row) of the middle of a class's pixels."""
    rows, columns = np.nonzero(mask == LABEL[name])
    return columns.mean(), rows.mean()


def mask_of(parameters, size):
    """The mask alone, before a grey wall: a background costs time, and no label depends on it."""
    return render(parameters, size, np.full((size, size, 3), 128, dtype=np.uint8))[1]


def bare(parameters):
    """The same face with nothing on it that hides its parts."""
    plain = {"headwear": "none", "glasses": "none", "facewear": "none", "beard_style": "none", "hair_style": "crop"}
    hair = {"hair_fringe": 0.0, "hair_line": 0.3, "hair_recession": 0.0}
    view = {"head_share": 0.7, "centre_x": 0.0, "centre_y": 0.0, "field_of_view": 14.0}
    return replace(parameters, **STUDIO, **plain, **hair, **view, lid_right=1.0, lid_left=1.0)


def test_every_field_names_its_unit_and_range():
    for item in fields(FaceParameters):
        assert item.metadata["unit"], item.name
        assert "options" in item.metadata or item.metadata["range"][0] < item.metadata["range"][1], item.name


def test_values_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match=r"yaw is 90.0; it is degrees.*from -75 to 75"):
        FaceParameters(yaw=90.0)
    with pytest.raises(ValueError, match=r"hair_style is 'mullet'; it can be short, bald"):
        FaceParameters(hair_style="mullet")
    with pytest.raises(ValueError, match=r"lip_colour is \(0.0, 0.0, 2.0\)"):
        FaceParameters(lip_colour=(0.0, 0.0, 2.0))
    with pytest.raises(ValueError, match="size is 8"):
        render(FaceParameters(), 8)


def test_parameters_survive_json():
    drawn = sample(3, 14)
    read = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(json.dumps(drawn.to_json())).items()
    }
    assert FaceParameters(**read) == drawn


def test_sample_is_a_function_of_seed_and_index_alone():
    ahead = [sample(1, index) for index in range(8)]
    assert [sample(1, index) for index in reversed(range(8))] == ahead[::-1]
    assert len({*ahead, *(sample(2, index) for index in range(8))}) == 16


@pytest.mark.long
def test_sample_covers_every_option():
    drawn = [sample(0, index) for index in range(600)]
    for item in fields(FaceParameters):
        if "options" in item.metadata:
            assert {getattr(face, item.name) for face in drawn} == set(item.metadata["options"]), item.name


def test_render_gives_bytes_that_repeat():
    first, second = render(sample(0, 5), 64), render(sample(0, 5), 64)
    assert (
        first[0].shape == (64, 64, 3)
        and first[0].dtype == np.uint8
        and first[1].shape == (64, 64)
        and first[1].dtype == np.uint8
    )
    assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()


@pytest.mark.parametrize("index", range(4))
def test_mirrored_parameters_give_the_mirrored_mask_with_sides_swapped(index):
    parameters = replace(sample(7, index), noise=0.0, jpeg_quality=100.0)
    image, mask = render(parameters, 96)
    mirrored_image, mirrored_mask = render(mirror(parameters), 96)
    assert (FACE.mirror_table[mask[:, ::-1]] == mirrored_mask).mean() > 0.999
    assert np.abs(image[:, ::-1].astype(int) - mirrored_image).mean() < 1.0
    assert mirror(mirror(parameters)) == parameters


def test_mirroring_without_the_swap_of_sides_is_noticed():
    parameters = bare(sample(7, 1))
    mask, mirrored = mask_of(parameters, 96), mask_of(mirror(parameters), 96)
    assert (mask[:, ::-1] == mirrored).mean() < 0.999


@pytest.mark.parametrize("index", [0, *(pytest.param(index, marks=pytest.mark.long) for index in (1, 2, 3))])
def test_labels_are_those_of_the_pixel_centres_at_any_size(index):
    parameters = sample(11, index)
    small, large = mask_of(parameters, 256), mask_of(parameters, 768)
    assert (small == large[1::3, 1::3]).mean() > 0.995


@pytest.mark.slow
def test_images_are_anti_aliased():
    """The supersampled picture stays closer to a larger one, reduced, than the point-sampled picture would: few pixels
    jump.
    """
    parameters = replace(bare(sample(0, 1)), backdrop_blur=0.03)
    small = render(parameters, 64)[0].astype(float)
    large = render(parameters, 256)[0].astype(float)
    reduced, points = large.reshape(64, 4, 64, 4, 3).mean((1, 3)), large[2::4, 2::4]
    assert np.square(small - reduced).mean() < 0.6 * np.square(points - reduced).mean()


@pytest.fixture(scope="module")
def unchecked():
    """A process in which no shapes are checked, which takes longer than a small face itself."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def classes_of(indices):
    return sum(np.bincount(mask_of(sample(0, index), 48).ravel(), minlength=256) > 0 for index in indices)


@pytest.mark.nightly
@pytest.mark.long
def test_every_class_occurs_in_500_faces(unchecked):
    seen = unchecked.submit(classes_of, range(500)).result()
    assert not seen[len(FACE) :].any(), "no pixel is ignored"
    rare = {name: int(seen[label]) for label, name in enumerate(FACE.names) if seen[label] < 10}
    assert not rare


@pytest.mark.parametrize("index", range(5))
def test_parts_are_where_they_belong(index):
    drawn = bare(sample(21, index))
    parameters = replace(drawn, yaw=drawn.yaw / 4, pitch=drawn.pitch / 4, roll=drawn.roll / 4)
    mask = mask_of(parameters, 192)
    right, left = middle_of(mask, "right_eye"), middle_of(mask, "left_eye")
    assert right[0] > left[0] + 10, "right is the viewer's"
    assert middle_of(mask, "right_brow")[0] > middle_of(mask, "left_brow")[0]
    heights = [
        middle_of(mask, name)[1]
        for name in ("hair", "right_brow", "right_eye", "nose", "top_lip", "bottom_lip", "neck")
    ]
    assert heights == sorted(heights), "from hair down to the neck"
    face = np.isin(
        mask, [LABEL[name] for name in ("skin", "nose", "hair", "right_ear", "left_ear", "right_brow", "left_brow")]
    )
    for name in ("right_eye", "left_eye"):
        for row, column in np.argwhere(mask == LABEL[name]):
            assert (
                face[row, :column].any()
                and face[row, column + 1 :].any()
                and face[:row, column].any()
                and face[row + 1 :, column].any()
            )


def test_ears_carry_the_viewers_side_when_the_head_turns():
    mask = mask_of(replace(bare(sample(21, 0)), yaw=55.0, pitch=0.0, roll=0.0), 128)
    assert (mask == LABEL["left_ear"]).sum() > 20, "turned to the viewer's right, the ear on the left shows"
    assert not (mask == LABEL["right_ear"]).any()


@pytest.mark.long
def test_expression_and_wear_do_what_they_say():
    shut = replace(
        bare(sample(21, 2)), glasses_width=3.0, glasses_height=2.4, yaw=0.0, pitch=0.0, jaw_open=0.0, lid_left=0.0
    )
    mask = mask_of(shut, 160)
    assert (
        not (mask == LABEL["mouth_interior"]).any()
        and (mask == LABEL["left_eye"]).sum() < 0.2 * (mask == LABEL["right_eye"]).sum()
    )
    assert (mask_of(replace(shut, jaw_open=2.0), 160) == LABEL["mouth_interior"]).sum() > 30
    spectacles, dark = (mask_of(replace(shut, glasses=kind), 160) for kind in ("spectacles", "sunglasses"))
    assert (spectacles == LABEL["glasses"]).sum() > 50 and (spectacles == LABEL["right_eye"]).any(), (
        "lenses are labelled as what is behind"
    )
    assert not np.isin(dark, [LABEL["right_eye"], LABEL["left_eye"]]).any()
    masked = mask_of(replace(shut, facewear="mask"), 160)
    assert (
        not np.isin(masked, [LABEL["top_lip"], LABEL["bottom_lip"]]).any()
        and (masked == LABEL["facewear"]).sum() > 300
    )
    for kind in ("cap", "beanie", "hat", "headscarf", "headphones", "band", "visor"):
        assert (mask_of(replace(shut, headwear=kind), 64) == LABEL["headwear"]).sum() > 20, kind
    for kind in ("stubble", "moustache", "goatee", "chinstrap", "full"):
        assert (mask_of(replace(shut, beard_style=kind, beard_density=1.0), 128) == LABEL["beard"]).sum() > 20, kind


@pytest.mark.slow
def test_what_hangs_about_the_head_covers_the_ears_and_not_the_face():
    plain = replace(bare(sample(21, 0)), yaw=0.0, pitch=0.0, roll=0.0, hair_opening=70.0)
    ears, face = (
        [LABEL["right_ear"], LABEL["left_ear"]],
        [LABEL[name] for name in ("right_eye", "left_eye", "nose", "top_lip")],
    )
    free = mask_of(plain, 128)
    for worn, name in (
        ({"hair_style": "long"}, "hair"),
        ({"headwear": "headscarf"}, "headwear"),
        ({"clothing": "hood_up"}, "clothing"),
    ):
        covered = mask_of(replace(plain, hair_thickness=1.6, **worn), 128)
        assert np.isin(covered, ears).sum() < 0.2 * np.isin(free, ears).sum(), name
        assert (covered == LABEL[name]).sum() > (free == LABEL[name]).sum() + 100, name
        assert all((covered == label).sum() > 0.9 * (free == label).sum() for label in face), name
    swept = mask_of(replace(plain, hair_style="long", hair_thickness=1.6, hair_opening=45.0, hair_sweep=1.0), 128)
    assert (swept == LABEL["right_eye"]).sum() < 0.5 * (swept == LABEL["left_eye"]).sum(), (
        "hair hangs over the eye on the right"
    )


def test_a_brim_casts_its_shadow_on_the_eyes():
    lit = replace(
        bare(sample(21, 0)),
        yaw=0.0,
        pitch=0.0,
        roll=0.0,
        key_azimuth=0.0,
        key_elevation=55.0,
        key_hardness=1.0,
        dapple=0.0,
    )
    lit = replace(lit, key_strength=1.5, sky_strength=0.2, rim_strength=0.0, fill_strength=0.0)
    bright, mask = render(lit, 96)
    dark, hatted = render(replace(lit, headwear="hat", headwear_line=6.0), 96)
    under = (mask == LABEL["nose"]) & (hatted == LABEL["nose"])
    assert under.sum() > 50 and dark[under].mean() < 0.8 * bright[under].mean()


def test_an_object_in_front_is_background():
    drawn = bare(sample(21, 3))
    without, with_object = render(drawn, 64)[1], render(replace(drawn, occluder="hand"), 64)[1]
    changed = without != with_object
    assert changed.any() and not with_object[changed].any()


def extremes(item):
    """Values of one field: its options, or its range with both ends."""
    if "options" in item.metadata:
        return st.sampled_from(item.metadata["options"])
    low, high = item.metadata["range"]
    if item.name == "texture_seed":
        return st.integers(low, high)
    number = st.sampled_from([float(low), float(high)]) | st.floats(low, high)
    return st.tuples(number, number, number) if isinstance(item.default, tuple) else number


ANY_FACE = st.builds(FaceParameters, **{item.name: extremes(item) for item in fields(FaceParameters)})


def check_draws(parameters, backdrop=None):
    with np.errstate(all="raise", under="ignore"):
        image, mask = render(parameters, 48, backdrop)
    assert image.shape == (48, 48, 3) and mask.max() < len(FACE)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(ANY_FACE)
def test_extremes_draw(parameters):
    check_draws(parameters)


@pytest.mark.nightly
@pytest.mark.long
def test_extremes_draw_many(unchecked):
    @seed(1)
    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(ANY_FACE)
    def draws(parameters):
        unchecked.submit(check_draws, parameters, np.full((48, 48, 3), 128, dtype=np.uint8)).result()

    draws()


@pytest.mark.slow
def test_lips_meet_and_stay_in_order():
    x = np.linspace(-3.5, 3.5, 201)
    for index in range(200):
        mouth = Anatomy(sample(5, index)).mouth
        edges = [mouth.top_lip_top(x), mouth.top_lip_bottom(x), mouth.bottom_lip_top(x), mouth.bottom_lip_bottom(x)]
        assert all((upper >= lower - 1e-6).all() for upper, lower in pairwise(edges))
        outside = np.abs(mouth.along(x)) >= 1
        assert np.allclose(edges[0][outside], edges[3][outside])


def rays_from_front(count=400):
    side = np.linspace(-6, 6, int(count**0.5), dtype=np.float32)
    x, y = (part.ravel() for part in np.meshgrid(side, side))
    direction = np.stack([x, y, np.full_like(x, -30)])
    return Rays(np.array([[0], [0], [30]], dtype=np.float32), direction / np.sqrt((direction**2).sum(0)))


def test_star_surface_finds_a_sphere_and_its_normals():
    sphere = StarSurface((0.5, 0, 0), np.full(table_directions().shape[1], 5, dtype=np.float32), {})
    rays = rays_from_front()
    depth = sphere.intersect(rays, np.full(rays.direction.shape[1], np.inf, dtype=np.float32))
    hit = np.isfinite(depth)
    expected, _ = meet_ellipsoid(rays, (0.5, 0, 0), (5, 5, 5))
    assert np.array_equal(hit, np.isfinite(expected))
    point = rays.take(np.flatnonzero(hit)).at(depth[hit])
    facing = -((point - [[0.5], [0], [0]]) / 5 * rays.direction[:, hit]).sum(0)
    assert np.abs(depth[hit] - expected[hit])[facing > 0.3].max() < 0.01, (
        "a grazing ray meets the outline, at a less certain depth"
    )
    assert np.abs(depth[hit] - expected[hit]).max() < 0.5
    found = sphere.look_up(point)
    assert np.allclose(np.stack([found["nx"], found["ny"], found["nz"]]), (point - [[0.5], [0], [0]]) / 5, atol=0.02)


def test_ellipsoids_and_cones_satisfy_their_equations():
    rays = rays_from_front()
    depth, normal = meet_ellipsoid(rays, (1, 0, 2), (3, 4, 5))
    hit = np.flatnonzero(np.isfinite(depth))
    x, y, z = rays.take(hit).at(depth[hit])
    assert hit.size > 50 and np.allclose(((x - 1) / 3) ** 2 + (y / 4) ** 2 + ((z - 2) / 5) ** 2, 1, atol=1e-4)
    assert np.allclose((normal**2).sum(0)[hit], 1, atol=1e-4)
    (near, _), (far, _) = meet_cone(rays, (0, 0), (3, 4), 0.05, -1)
    hit = np.flatnonzero(np.isfinite(near))
    for depth in (near, far):
        x, y, z = rays.take(hit).at(depth[hit])
        assert np.allclose((x / 3) ** 2 + (z / 4) ** 2, (1 - 0.05 * (y + 1)) ** 2, atol=1e-3)
    assert (far[hit] >= near[hit]).all()
    direction = table_directions()
    assert np.allclose((direction**2).sum(0), 1, atol=1e-4)
    assert np.allclose(ellipsoid_radius(direction, (0, 0, 0), (2, 2, 2)), 2, atol=1e-4)


def test_turning_keeps_lengths_and_turns_the_right_way():
    frame = turned(40, 20, 10, (0, -7, -2))
    assert np.allclose(frame.rotation @ frame.rotation.T, np.eye(3), atol=1e-6)
    points = np.random.default_rng(0).normal(size=(3, 20)).astype(np.float32)
    assert np.allclose(frame.points_in(frame.points_out(points)), points, atol=1e-5)
    forward, up = np.array([[0], [0], [1]], dtype=np.float32), np.array([[0], [1], [0]], dtype=np.float32)
    assert turned(30, 0, 0, (0, 0, 0)).vectors_out(forward)[0, 0] > 0.4, "to the viewer's right"
    assert turned(0, 30, 0, (0, 0, 0)).vectors_out(forward)[1, 0] > 0.4, "up"
    assert turned(0, 0, 30, (0, 0, 0)).vectors_out(up)[0, 0] > 0.4, "tilted to the viewer's right"
