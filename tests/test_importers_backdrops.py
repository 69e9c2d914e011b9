"""Backgrounds of transparent renders: the arithmetic, which photograph or drawing, and what stays as it is."""

import numpy as np
import pytest
from PIL import Image

from seg_recipe.data import load_data
from seg_recipe.importers.backdrops import over
from seg_recipe.labels import load_label_space
from seg_recipe.runtime.errors import InputError
from tests.face_files import make_folder, png, run, tree
from tests.foreign_layouts import H, W, palette_png, rng
from tests.test_importers_formats import found, pixels

RED, BLUE = (250, 10, 20), (5, 30, 240)


def renders(premultiplied=False):
    """Ten pictures: opaque at the left, half transparent in the middle, nothing at the right."""
    files, masks = {}, {}
    for number in range(10):
        name = f"render{number}"
        rgba = rng(name).integers(0, 256, (H, W, 4), dtype=np.uint8)
        rgba[:, :4, 3], rgba[:, -4:, 3] = 255, 0
        if premultiplied:
            rgba[..., :3] = rgba[..., :3].astype(int) * rgba[..., 3:] // 255
        mask = rng(name, "mask").integers(0, 3, (H, W), dtype=np.uint8)
        files |= {f"rgb/{name}.png": png(rgba), f"masks/{name}.png": palette_png(mask)}
        masks[name] = rgba, mask
    return files, masks


@pytest.fixture
def source(tmp_path):
    files, wanted = renders()
    photographs = {f"{n}.png": png(np.full((64, 90, 3), colour, np.uint8)) for n, colour in enumerate((RED, BLUE))}
    make_folder(tmp_path / "photographs", photographs)
    (tmp_path / "table.json").write_text('{"background": 0, "leaf": 1, "stem": 2}')
    make_folder(tmp_path / "in", files)
    return tmp_path, wanted


def imported(place, out, *options):
    patterns = ["--images", "rgb/*.png", "--masks", "masks/*.png", "--table", place / "table.json"]
    return run(place / "in", place / out, *patterns, *options)


def test_straight_colours_are_put_over_as_pillow_does_it():
    rgba = rng("rgba").integers(0, 256, (40, 50, 4), dtype=np.uint8)
    behind = rng("behind").integers(0, 256, (40, 50, 3), dtype=np.uint8)
    back = Image.fromarray(behind).convert("RGBA")
    wanted = np.asarray(Image.alpha_composite(back, Image.fromarray(rgba)).convert("RGB")).astype(int)
    assert np.abs(over(rgba, behind) - wanted).max() <= 1
    alpha = rgba[..., 3:] / 255
    exact = rgba[..., :3] * alpha + behind * (1 - alpha)
    assert np.abs(over(rgba, behind) - exact).max() <= 0.5


def test_multiplied_colours_are_not_multiplied_again():
    rgba = rng("rgba").integers(0, 256, (40, 50, 4), dtype=np.uint8)
    behind = rng("behind").integers(0, 256, (40, 50, 3), dtype=np.uint8)
    multiplied = rgba.copy()
    multiplied[..., :3] = np.rint(rgba[..., :3] * (rgba[..., 3:] / 255))
    assert np.abs(over(multiplied, behind, premultiplied=True).astype(int) - over(rgba, behind)).max() <= 1
    for alpha, wanted in ((0, behind), (255, rgba[..., :3])):
        flat = np.dstack([rgba[..., :3] if alpha else np.zeros_like(behind), np.full((40, 50), alpha, np.uint8)])
        np.testing.assert_array_equal(over(flat, behind, premultiplied=True), wanted)
        np.testing.assert_array_equal(over(flat, behind), wanted)


def test_each_picture_has_its_photograph_and_masks_stay(source, capsys):
    place, wanted = source
    result = imported(place, "out", "--backgrounds", place / "photographs")
    assert (result["written"], result["damaged"], result["problems"]) == (10, 0, 0)
    behind = set()
    for name, (_, mask, image) in found(place / "out").items():
        rgba, ids = wanted[name]
        np.testing.assert_array_equal(mask, ids)
        got = pixels(image, "RGB")
        np.testing.assert_array_equal(got[:, :4], rgba[:, :4, :3])
        (colour,) = {tuple(pixel) for pixel in got[:, -4:].reshape(-1, 3).tolist()}
        behind.add(colour)
        np.testing.assert_array_equal(got, over(rgba, np.broadcast_to(np.uint8(colour), (H, W, 3))))
    assert behind == {RED, BLUE}
    printed = capsys.readouterr().out
    assert "NOTE: 10 pictures were put over photographs; their colours were taken as straight" in printed
    assert "no colour is brighter" not in printed


def test_the_choice_is_that_of_the_seed_and_the_id(source):
    place, _ = source
    options = ["--backgrounds", place / "photographs", "--no_check", "--count", 0]
    imported(place, "whole", *options)
    imported(place, "parts", *options, "--limit", 3, "--workers", 1)
    imported(place, "parts", *options)
    assert tree(place / "parts") == tree(place / "whole")
    imported(place, "other", *options, "--background_seed", 1)
    assert tree(place / "other") != tree(place / "whole")
    with pytest.raises(ValueError, match="parts was imported with other backgrounds"):
        imported(place, "parts", *options, "--premultiplied")


def test_colours_that_look_multiplied_are_told(source, capsys):
    place, _ = source
    make_folder(place / "in", renders(premultiplied=True)[0])
    options = ["--backgrounds", place / "photographs", "--no_check", "--count", 0]
    imported(place, "out", *options)
    assert "no colour is brighter than its alpha" not in capsys.readouterr().out  # 32 pixels tell nothing
    for number in range(10):
        rgba = rng(number, "large").integers(0, 256, (40, 60, 4), dtype=np.uint8)
        rgba[..., :3] = rgba[..., :3].astype(int) * rgba[..., 3:] // 255
        make_folder(place / "in", {f"rgb/render{number}.png": png(rgba)})
        make_folder(place / "in", {f"masks/render{number}.png": palette_png(np.zeros((40, 60), np.uint8))})
    imported(place, "large", *options)
    assert "no colour is brighter than its alpha" in capsys.readouterr().out
    imported(place, "said", *options, "--premultiplied")
    printed = capsys.readouterr().out
    assert "multiplied by alpha, as --premultiplied says" in printed and "no colour is brighter" not in printed


def test_without_photographs_transparent_pictures_are_left_out_with_the_way_out(source, capsys):
    place, _ = source
    assert imported(place, "out")["damaged"] == 10
    printed = capsys.readouterr().out
    assert "has transparent pixels: give --backgrounds" in printed
    assert (
        "NOTE: --backgrounds DIR puts photographs of a folder behind transparent pixels, --backgrounds drawn "
        in printed
    )
    (place / "empty").mkdir()
    with pytest.raises(InputError, match="holds no photographs"):
        imported(place, "other", "--backgrounds", place / "empty")
    with pytest.raises(SystemExit):
        imported(place, "other", "--premultiplied")
    assert "no effect without --backgrounds" in capsys.readouterr().err


def test_a_damaged_photograph_is_named(source):
    place, _ = source
    for name in ("0.png", "1.png"):
        data = (place / "photographs" / name).read_bytes()
        (place / "photographs" / name).write_bytes(data[:60])
    with pytest.raises(InputError, match=r"--backgrounds: .*\.png cannot be read as a picture"):
        imported(place, "out", "--backgrounds", place / "photographs")


def test_imports_with_several_seeds_hold_out_the_same_ids_and_train_together(source):
    place, _ = source
    for seed in (0, 1):
        imported(place, f"seed{seed}", "--backgrounds", place / "photographs", "--background_seed", seed)
    sides = [{name: split for name, (split, _, _) in found(place / f"seed{seed}").items()} for seed in (0, 1)]
    assert sides[0] == sides[1] and {*sides[0].values()} == {"train", "val"}
    folders = [str(place / f"seed{seed}") for seed in (0, 1)]
    splits = load_data(folders, label_space=load_label_space(f"{folders[0]}/labels.json")).splits
    assert len(splits["train"]) == 2 * [*sides[0].values()].count("train")
    evaluated = [name for name in splits if name != "train"]
    assert sum(len(splits[name]) for name in evaluated) == 2 * [*sides[0].values()].count("val")


def test_drawn_scenes_stand_behind_without_photographs_and_the_same_when_an_import_goes_on(source, capsys):
    place, wanted = source
    result = imported(place, "whole", "--backgrounds", "drawn")
    assert (result["written"], result["damaged"], result["problems"]) == (10, 0, 0)
    assert "10 pictures were put over drawn scenes" in capsys.readouterr().out
    behind = set()
    for name, (_, mask, image) in found(place / "whole").items():
        rgba, ids = wanted[name]
        np.testing.assert_array_equal(mask, ids)
        got = pixels(image, "RGB")
        np.testing.assert_array_equal(got[:, :4], rgba[:, :4, :3])
        behind.add(got[:, -4:].tobytes())
    assert len(behind) == 10, "each picture has a scene of its own"
    imported(place, "parts", "--backgrounds", "drawn", "--limit", 4)
    imported(place, "parts", "--backgrounds", "drawn")
    assert tree(place / "parts") == tree(place / "whole")
    imported(place, "seeded", "--backgrounds", "drawn", "--background_seed", 1)
    assert tree(place / "seeded") != tree(place / "whole")
    with pytest.raises(ValueError, match="parts was imported with other backgrounds"):
        imported(place, "parts", "--backgrounds", place / "photographs")
