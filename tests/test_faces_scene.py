"""Backgrounds, things in front, light, camera and the sampling of views of the drawn faces; the user's photographs
behind them.
"""

from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from seg_recipe.faces import FaceParameters, render, sample
from seg_recipe.faces.backdrop import make_backdrop
from seg_recipe.faces.camera import develop
from seg_recipe.faces.circumstances import sample_camera, sample_light, sample_scene, sample_view
from seg_recipe.faces.light import surroundings
from seg_recipe.faces.oversampling import RARE, sample_with_rare
from seg_recipe.faces.photographs import find_photographs, photograph_behind
from seg_recipe.faces.spaces import Wall, camera, horizon, see
from seg_recipe.faces.things import HAIRS, SKINS
from seg_recipe.labels import FACE

PLACES = FaceParameters.__dataclass_fields__["backdrop"].metadata["options"]
THINGS = FaceParameters.__dataclass_fields__["occluder"].metadata["options"]
PLAIN = FaceParameters(noise=0.0, blur=0.0, vignette=0.0, texture_seed=3, dapple=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_background_is_one_scene_at_every_size_and_its_mirror_image_is_its_mirror_image(place):
    p = FaceParameters(backdrop=place, backdrop_blur=0.02, texture_seed=11)
    small, large = make_backdrop(p, 64), make_backdrop(p, 256)
    assert small.shape == (64, 64, 3) and small.dtype == np.uint8
    assert np.abs(large.reshape(64, 4, 64, 4, 3).mean((1, 3)) - small).mean() < 3
    assert np.array_equal(make_backdrop(p, 64), small)
    assert np.abs(make_backdrop(replace(p, lateral=-1.0), 64)[:, ::-1].astype(int) - small).max() <= 2
    assert np.abs(make_backdrop(replace(p, texture_seed=12), 64).astype(int) - small).mean() > 8, (
        "another seed, another scene"
    )


@pytest.mark.slow
def test_colour_alone_does_not_tell_the_face():
    """Somewhere in a few dozen backgrounds there is every colour of skin and hair that the people in them have."""
    codes = np.concatenate([make_backdrop(sample(2, index), 64).reshape(-1, 3) for index in range(30)]).astype(int)
    for colour in SKINS + HAIRS:
        assert (np.abs(codes - colour).max(axis=1) < 20).any(), colour


@pytest.mark.slow
def test_backgrounds_are_cluttered_at_several_scales_and_the_blur_takes_the_finest():
    def pictures(blur):
        scenes = [
            FaceParameters(backdrop=place, backdrop_blur=blur, texture_seed=seed)
            for place in PLACES
            for seed in (1, 2)
        ]
        return [make_backdrop(p, 128).astype(float) for p in scenes]

    def change(pictures, step):
        return np.mean([np.abs(picture[:, step:] - picture[:, :-step]).mean() for picture in pictures])

    sharp, soft = pictures(0.0), pictures(0.03)
    assert change(sharp, 1) > 3 and change(sharp, 8) > 9 and change(sharp, 32) > 12
    assert change(soft, 1) < 0.5 * change(sharp, 1) and change(soft, 32) > 0.5 * change(sharp, 32)


def test_mean_brightness_of_a_background_is_what_was_asked_for():
    scenes = [FaceParameters(backdrop="foliage", backdrop_light=light, texture_seed=5) for light in (0.15, 0.3, 0.5)]
    means = [make_backdrop(p, 64).mean() for p in scenes]
    assert np.allclose(means, np.array([0.15, 0.3, 0.5]) * 255, atol=24)


def test_a_wall_is_seen_where_its_plane_is():
    """Each pixel's colour says which point of the back wall it shows; the same point from the camera's
    matrix by hand.
    """
    rng = np.random.default_rng(0)
    view, side = camera(rng, 64, 20), 64
    along, up = np.meshgrid(np.linspace(0, 250, 256), np.linspace(0, 250, 256))
    ramp = Image.fromarray(np.stack([along, up, np.full_like(up, 250)], axis=2).astype(np.uint8))
    picture = Image.new("RGB", (side, side))
    see(picture, view, [Wall((0, 0, 1), 5, ramp, (-6, 6), (4, -3))])
    seen = np.asarray(picture).astype(float)
    checked = 0
    for row, column in [(5, 5), (20, 40), (32, 32), (50, 12), (60, 60)]:
        ray = view.astype(float) @ [column + 0.5, row + 0.5, 1]
        x, y, _ = ray * 5 / ray[2]
        if -6 < x < 6 and -3 < y < 4:
            light = seen[row, column, 2] / 250
            assert np.allclose(seen[row, column, :2] / light, [(x + 6) / 12 * 250, (4 - y) / 7 * 250], atol=6)
            checked += 1
    assert checked >= 3
    flat = view.astype(float) @ [32, 64 * horizon(view, 64), 1]
    assert abs(flat[1]) < 1e-5, "a ray to the horizon neither rises nor falls"


def test_light_from_a_side_lights_that_side():
    dark = {"key_strength": 0.0, "rim_strength": 0.0, "sky_strength": 0.1, "surroundings": 0.0}
    base = replace(PLAIN, **dark, hair_style="bald", head_share=0.7)
    image, mask = render(base, 64)
    skin = mask == FACE.label2id["skin"]

    def sides(changed):
        gain = render(changed, 64)[0].astype(float) - image
        return gain[:, 32:][skin[:, 32:]].mean(axis=0), gain[:, :32][skin[:, :32]].mean(axis=0)

    right, left = sides(replace(base, fill_strength=1.0, fill_azimuth=80.0, fill_colour=(1.0, 0.1, 0.1)))
    assert right[0] > 1.5 * left[0] and right[0] > 2 * right[2]
    right, left = sides(replace(base, key_strength=1.5, key_azimuth=-80.0))
    assert left.mean() > 2 * right.mean()
    lit = replace(base, key_strength=1.5, key_azimuth=10.0)
    shaded = render(replace(lit, dapple=1.0), 64)[0][skin].astype(float) - render(lit, 64)[0][skin]
    assert (
        shaded.max() <= 3 and (shaded.mean(axis=1) < -30).mean() > 0.1 and (shaded.mean(axis=1) > -3).mean() > 0.1
    ), "leaves, and gaps"


def test_the_background_colours_the_light_around():
    backdrop = np.full((32, 32, 3), 90, dtype=np.uint8)
    backdrop[:, :16] = (200, 20, 20)
    right, left = surroundings(backdrop)[:, 0], surroundings(backdrop)[:, 1]
    assert left[0] > 3 * left[1] and np.allclose(right, right[0])
    p = replace(PLAIN, key_strength=0.1, sky_strength=1.0, hair_style="bald", head_share=0.8)
    image, mask = render(replace(p, surroundings=1.0), 64, backdrop.repeat(2, 0).repeat(2, 1))
    plain, skin = render(replace(p, surroundings=0.0), 64)[0], mask == FACE.label2id["skin"]
    gain = (image.astype(float) - plain) @ [1, 0, -1]
    redder = [gain[half][skin[half]].mean() for half in (np.s_[:, :32], np.s_[:, 32:])]
    assert redder[0] > redder[1] + 10, "on the left, where the background is red"


@pytest.mark.slow
@pytest.mark.parametrize("thing", [thing for thing in THINGS if thing != "none"])
def test_what_stands_in_front_is_background_and_hides_what_is_behind(thing):
    hidden = 0
    for seed in range(4):
        p = replace(PLAIN, texture_seed=seed, head_share=0.8)
        (image, mask), (with_image, with_mask) = render(p, 64), render(replace(p, occluder=thing), 64)
        changed = mask != with_mask
        assert not with_mask[changed].any()
        assert np.array_equal(with_mask[~changed], mask[~changed])
        hidden += changed.sum()
        assert not changed.any() or np.abs(with_image.astype(int) - image)[changed].mean() > 5
    assert hidden > 60


def test_exposure_contrast_and_white_balance_do_what_they_say():
    light = np.full((32, 32, 3), 0.3, dtype=np.float32)
    codes = [develop(replace(PLAIN, exposure=exposure), light).mean() for exposure in (0.35, 0.7, 1.0, 1.5, 2.2)]
    assert codes == sorted(codes) and codes[0] < 110 and codes[-1] > 200
    warm = develop(replace(PLAIN, warmth=0.2), light)[0, 0].astype(int)
    assert warm[0] > warm[1] > warm[2]
    vignetted = develop(replace(PLAIN, vignette=0.5), light).astype(int)
    assert vignetted[0, 0, 0] < vignetted[16, 16, 0] - 20
    white = develop(PLAIN, np.full((32, 32, 3), 1.0, dtype=np.float32))
    assert white.min() >= 254, "white paper is white"


def test_noise_has_the_deviation_that_was_asked_for():
    codes = develop(replace(PLAIN, noise=0.05), np.full((128, 128, 3), 0.25, dtype=np.float32)).astype(float)
    assert abs(codes.std(axis=(0, 1)).mean() - 0.05 * 255) < 0.5
    assert 0.5 < np.corrcoef(codes[..., 0].ravel(), codes[..., 2].ravel())[0, 1] < 0.8, (
        "most of it is common to the colours"
    )


@pytest.mark.parametrize(("angle", "spread"), [(0.0, 1), (90.0, 0), (45.0, None)])
def test_motion_smears_along_its_direction_and_leaves_flat_things_alone(angle, spread):
    light = np.zeros((64, 64, 3), dtype=np.float32)
    light[32, 32] = 1
    codes = develop(
        replace(PLAIN, motion=0.02 * 64 / 64, motion_angle=angle), np.kron(light, np.ones((4, 4, 1), dtype=np.float32))
    )
    rows, columns = np.nonzero(codes[..., 0] > 10)
    extent = (np.ptp(rows), np.ptp(columns))
    if spread is None:
        assert extent[0] == extent[1] > 4 and np.corrcoef(rows, columns)[0, 1] < -0.2, "up to the viewer's right"
    else:
        assert extent[spread] > extent[1 - spread]
    flat = np.full((64, 64, 3), 0.4, dtype=np.float32)
    assert np.ptp(develop(replace(PLAIN, motion=0.02, motion_angle=angle), flat)) <= 1


@pytest.mark.slow
def test_jpeg_is_pillows_own_and_gets_worse_with_less_quality():
    image, _ = render(PLAIN, 96)
    drawn = [render(replace(PLAIN, jpeg_quality=quality), 96)[0].astype(int) for quality in (100.0, 90.0, 50.0, 20.0)]
    errors = [np.abs(picture - image).mean() for picture in drawn]
    assert errors[0] == 0 and errors == sorted(errors) and errors[1] > 0.3 and errors[3] < 12


def test_views_cover_the_range_and_centre_on_portraits():
    rng = np.random.default_rng(0)
    views = [sample_view(rng, {}) for _ in range(4000)]
    for name, low, high in (
        ("yaw", -70, 70),
        ("pitch", -33, 33),
        ("roll", -28, 28),
        ("head_share", 0.3, 0.95),
        ("centre_x", -0.4, 0.4),
    ):
        values = np.array([view[name] for view in views])
        assert values.min() < low and values.max() > high, name
    shares = np.array([view["head_share"] for view in views])
    assert 0.5 < ((shares > 0.48) & (shares < 0.68)).mean() < 0.8, "most are portraits"
    assert np.abs([view["yaw"] for view in views]).mean() < 35


def test_scene_light_and_camera_are_drawn_within_their_ranges_mostly():
    """`sample` cuts to the range; more than a few cuts would pile faces up at its ends."""
    rng, limits = np.random.default_rng(1), {item.name: item.metadata.get("range") for item in fields(FaceParameters)}
    drawn = []
    for _ in range(600):
        scene = sample_scene(rng, {})
        drawn.append(scene | sample_light(rng, scene) | sample_camera(rng, scene))
    for name in set().union(*drawn) - {"texture_seed", "lateral", "backdrop", "occluder"}:
        values = np.array([np.mean(face[name]) for face in drawn])
        low, high = limits[name]
        assert ((values < low) | (values > high)).mean() < 0.06, name
        assert len(np.unique(values)) > 10, name


@pytest.mark.slow
def test_portraits_are_the_same_people_and_scenes_seen_large_and_from_the_front():
    view = {"yaw", "pitch", "roll", "body_yaw", "field_of_view", "head_share", "centre_x", "centre_y"}
    for index in range(20):
        whole, portrait = sample(3, index), sample(3, index, portraits=True)
        assert {
            item.name for item in fields(whole) if getattr(whole, item.name) != getattr(portrait, item.name)
        } <= view
    drawn = [sample(3, index, portraits=True) for index in range(300)]
    assert np.std([face.yaw for face in drawn]) < 18 and np.std([sample(3, index).yaw for index in range(300)]) > 24
    assert all(0.55 <= face.head_share <= 0.9 and abs(face.centre_x) < 0.3 for face in drawn)
    rare = [sample_with_rare(3, index, portraits=True) for index in range(30)]
    assert all(0.55 <= face.head_share <= 0.9 for face in rare)


@pytest.mark.slow
def test_oversampling_shows_rare_classes_more_often_and_is_a_function_of_seed_and_index():
    plain, rich = [sample(3, index) for index in range(100)], [sample_with_rare(3, index) for index in range(100)]
    assert [sample_with_rare(3, index) for index in (99, 5)] == [rich[99], rich[5]]
    changed = [after for before, after in zip(plain, rich, strict=True) if before != after]
    assert 35 < len(changed) < 65, "half of the faces stay as they are"
    assert all(any(shows(p) for shows in RARE.values()) for p in changed)
    for name, shows in RARE.items():
        assert np.mean([shows(p) for p in changed]) > np.mean([shows(p) for p in plain]), name


def test_photographs_are_cropped_turned_upright_and_named(tmp_path):
    across = np.tile(np.linspace(0, 255, 300).astype(np.uint8), (100, 1))
    picture = Image.fromarray(np.stack([across, across, np.full_like(across, 77)], axis=2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to the right: the gradient runs downwards
    picture.save(tmp_path / "b.jpg", exif=exif, quality=95)
    (tmp_path / "deep").mkdir()
    Image.new("RGBA", (90, 80), (0, 200, 0, 255)).save(tmp_path / "deep" / "a.PNG")
    (tmp_path / ".hidden.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    photographs = find_photographs(tmp_path)
    assert photographs.names == ("b.jpg", "deep/a.PNG")
    names = [photographs.name(0, index) for index in range(40)]
    assert set(names) == set(photographs.names)
    for index, name in enumerate(names):
        behind = photograph_behind(photographs, 0, index, 48, 0.0)
        assert behind.shape == (48, 48, 3) and np.array_equal(
            behind, photograph_behind(photographs, 0, index, 48, 0.0)
        )
        if name == "b.jpg":
            down = behind[-1, :, 0].mean() - behind[0, :, 0].mean()
            assert 35 < down < 95, "half up to all of the shorter side, 100 of 300 pixels"
            assert np.ptp(behind[..., 0].astype(int), axis=1).max() < 12, "and nothing across"
        else:
            assert np.array_equal(np.unique(behind.reshape(-1, 3), axis=0), [[0, 200, 0]])
    index = names.index("b.jpg")
    sharp, soft = (photograph_behind(photographs, 0, index, 48, blur) for blur in (0.0, 0.03))
    assert np.array_equal(np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(0.03 * 48))), soft)


def test_folders_that_hold_no_photographs_are_refused_by_name(tmp_path):
    with pytest.raises(
        ValueError, match=r"backgrounds is .*nowhere, which is not a folder; wanted one with photographs \(\.jpg"
    ):
        find_photographs(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no photographs; wanted files that end in"):
        find_photographs(tmp_path)
    Image.new("RGB", (100, 40)).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match=r"thin\.png is 100 x 40; a background has 64 pixels a side or more"):
        find_photographs(tmp_path)
    (tmp_path / "thin.png").write_bytes(b"not a picture")
    with pytest.raises(
        ValueError, match=r"thin\.png cannot be read as a picture .* Mend it, or take it out of the folder"
    ):
        find_photographs(tmp_path)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8))
    noise.save(tmp_path / "thin.png")
    whole = (tmp_path / "thin.png").read_bytes()
    (tmp_path / "thin.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"thin\.png cannot be read as a picture"):
        photograph_behind(find_photographs(tmp_path), 0, 0, 32, 0.0)
