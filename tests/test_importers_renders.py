"""Renderers' output beside the layouts themselves (foreign_layouts.py): what is refused, and tables in csv files."""

import json

import numpy as np
import pytest

from seg_recipe.importers import LeftOut, airsim, easysynth, kubric
from seg_recipe.importers.class_lists import read_colour_csv
from seg_recipe.importers.image_files import Unusable
from seg_recipe.runtime.errors import InputError
from tests import foreign_layouts
from tests.face_files import make_folder, png, run
from tests.foreign_layouts import EASYSYNTH, H, W, jpeg, listed, palette_png, photo
from tests.test_importers_formats import found

CSV = b"Undefined,0,0,0\nRoad,255,0,10\n"


def test_a_csv_of_colours_is_read_with_and_without_a_head():
    for text in ("a,1,2,3\nb,0,0,255\n", "name,r,g,b\r\na, 1, 2, 3\r\n\r\nb,0,0,255"):
        table = read_colour_csv(text, "x.csv")
        assert (table.names, table.codes) == (("a", "b"), {66051: 0, 255: 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,1,2\n", "x.csv has the line 'a,1,2'; wanted is name,R,G,B"),
        ("a,1,2,3\nb,red,0,0\n", "has the line 'b,red,0,0'"),
        ("a,1,2,256\n", "has the line 'a,1,2,256'"),
        ("a,1,2,3\na,3,2,1\n", "has the line 'a,3,2,1'; wanted is name,R,G,B, each name once"),
        ("a,1,2,3\nb,1,2,3\n", r"'b' and 'a' both have the colour \[1, 2, 3\]"),
    ],
)
def test_another_csv_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_colour_csv(text, "x.csv")


def test_masks_of_easysynth_that_are_jpegs_are_left_out_and_read_by_the_nearest_colour(tmp_path):
    files, wanted = {"SemanticClasses.csv": CSV}, {}
    for number in range(4):
        ids = np.zeros((32, 32), np.uint8)
        ids[:, 16:] = number % 2  # halves of whole JPEG blocks
        colours = np.array([EASYSYNTH["Undefined"], EASYSYNTH["Road"]], np.uint8)[ids]
        files |= {f"C/ColorImage/S.{number:04d}.png": png(photo(number, 32, 32)),
                  f"C/SemanticImage/S.{number:04d}.jpeg": jpeg(colours)}  # fmt: skip
        wanted[f"S_{number:04d}"] = ids
    source = make_folder(tmp_path / "in", files)
    assert run(source, tmp_path / "out")["damaged"] == 4
    patterns = ["--images", "C/ColorImage/S.*.png", "--masks", "C/SemanticImage/S.*.jpeg", "--nearest_colour", "100"]
    run(source, tmp_path / "other", *patterns, "--table", source / "SemanticClasses.csv", "--val_fraction", "0.5")
    for name, (_, mask, _) in found(tmp_path / "other").items():
        np.testing.assert_array_equal(mask, wanted[f"S_{name}"])


def test_lists_of_easysynth_that_differ_are_refused():
    files = {"a/SemanticClasses.csv": CSV, "b/SemanticClasses.csv": CSV.replace(b"Road", b"Street")}
    with pytest.raises(InputError, match="which differ; import one at a time"):
        easysynth.read(listed(files), LeftOut())
    with pytest.raises(InputError, match=r"SOURCE holds no SemanticClasses\.csv"):
        easysynth.read(listed({"SemanticImage/a.png": b""}), LeftOut())


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"instances": 3}', b'{"instances": [{"mass": 1}]}'])
def test_another_metadata_of_kubric_is_refused(content):
    files = {"s/metadata.json": content, "s/rgba_00000.png": b"", "s/segmentation_00000.png": b""}
    with pytest.raises(InputError, match=r'metadata\.json has no list "instances" with a category'):
        kubric.read(listed(files), LeftOut())


def test_an_instance_that_the_metadata_has_not_leaves_its_picture_out():
    content = json.dumps({"instances": [{"category": "chair"}]}).encode()
    files = {"s/metadata.json": content, "s/rgba_00000.png": png(photo("a")),
             "s/segmentation_00000.png": palette_png(np.full((H, W), 2))}  # fmt: skip
    (sample,) = kubric.read(listed(files), LeftOut()).samples
    with pytest.raises(Unusable, match="without a class: instance 2"):
        sample.mask.paint()
    left_out = LeftOut()
    del files["s/metadata.json"]
    assert list(kubric.read(listed(files), left_out).samples) == []
    assert "mask without the metadata.json of its scene" in left_out.lines()[0]


def test_transparent_renders_of_kubric_get_photographs(tmp_path):
    fake = foreign_layouts.kubric()
    clear = np.dstack([photo("a"), np.zeros((H, W), np.uint8)])
    fake.files |= {name: png(clear) for name in fake.files if "rgba" in name}
    make_folder(tmp_path / "photographs", {"a.png": png(np.full((64, 64, 3), 7, np.uint8))})
    source = make_folder(tmp_path / "in", fake.files)
    result = run(source, tmp_path / "out", "--backgrounds", tmp_path / "photographs", "--no_check")
    assert (result["written"], result["damaged"]) == (24, 0)


def test_a_recording_of_airsim_needs_names_and_its_column():
    fake = foreign_layouts.airsim().files
    with pytest.raises(
        InputError, match=r"SOURCE holds 0 classes\.csv; put one there, with a line name,red,green,blue"
    ):
        airsim.read(listed({name: data for name, data in fake.items() if "csv" not in name}), LeftOut())
    with pytest.raises(InputError, match=r"airsim_rec\.txt has no column ImageFile"):
        airsim.read(listed(fake | {"flight/airsim_rec.txt": b"a\tb\n"}), LeftOut())
    left_out, lost = LeftOut(), next(name for name in fake if "_5_" in name)
    assert len(list(airsim.read(listed({n: d for n, d in fake.items() if n != lost}), left_out).samples)) == 23
    assert left_out.counts["picture of the recording without its mask, or missing"] == 1


def people(values):
    files = {}
    for number in range(4):
        files |= {f"rgb_{number:07d}.png": png(photo(number)), f"alpha_{number:07d}.png": png(values)}
    return files


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], [0, 0, 0, 1, 1, 1]),
        (["--alpha", "1"], [0, 1, 1, 1, 1, 1]),
        (["--alpha", "255"], [0, 0, 0, 0, 0, 1]),
        (["--alpha", "13", "242"], [0, 0, 255, 255, 255, 1]),
    ],
)
def test_alpha_has_one_threshold_or_two(words, wanted, tmp_path):
    values = np.array([0, 12, 127, 128, 241, 255], np.uint8)
    alpha = np.tile(values, (H, W // 6 + 1))[:, :W]
    source = make_folder(tmp_path / "in", people(alpha))
    run(source, tmp_path / "out", *words)
    expected = np.array(wanted, np.uint8)[np.searchsorted(values, alpha)]
    for _, mask, _ in found(tmp_path / "out").values():
        np.testing.assert_array_equal(mask, expected)
    with pytest.raises(InputError, match="was imported with other alpha"):
        run(source, tmp_path / "out", "--alpha", "7")


def test_thresholds_of_alpha_without_sense_are_refused(tmp_path, capsys):
    for words in (["0"], ["256"], ["9", "9"], ["9", "8"], ["1", "2", "3"]):
        with pytest.raises(SystemExit):
            run(tmp_path, tmp_path / "out", "--alpha", *words)
        assert f"--alpha is {' '.join(words)}; it is one number or two, rising, in 1-255" in capsys.readouterr().err
    source = make_folder(tmp_path / "in", foreign_layouts.FAKES["kubric"]().files)
    with pytest.raises(InputError, match="--alpha has no effect: SOURCE is kubric, and SynthHuman alone has"):
        run(source, tmp_path / "out", "--alpha", "9")
