"""Each row of the table of docs/data.md is a command that imports what the row says; and folders of known formats that
have no reader are told by their names.
"""

import json
import re
import shlex
import shutil

import numpy as np
import pytest

from seg_recipe.importers import FORMATS, LeftOut, recognise
from seg_recipe.importers.pairs import SPLIT
from seg_recipe.runtime.errors import InputError
from tests.face_files import contents, make_folder, make_zip, png, run
from tests.foreign_layouts import FAKES, H, W, jpeg, listed, photo, rng
from tests.test_readme import DATA, rows

TABLE = rows(DATA, "what you have | the command")
COLOURS = {"background": [0, 0, 0], "leaf": [0, 255, 0]}


def carla():
    """Tags that both versions have, in the red channel."""
    files = {}
    for number in range(10):
        tags = rng("carla", number).integers(1, 20, (H, W, 3), dtype=np.uint8)
        files |= {f"rgb/{number}.png": png(photo(f"carla {number}")), f"semantic/{number}.png": png(tags)}
    return files


def painted(leaf=(0, 255, 0)):
    files = {}
    for number in range(10):
        colours = np.array([COLOURS["background"], leaf], np.uint8)[rng("painted", number).integers(0, 2, (H, W))]
        files |= {f"photos/{number}.jpg": jpeg(photo(number)), f"masks/{number}.png": png(colours)}
    return files


def cutouts():
    files = FAKES["kubric"]().files
    clear = png(np.dstack([photo("c"), np.zeros((H, W), np.uint8)]))
    return files | {name: clear for name in files if "rgba" in name}


def fakes(*names):
    return [lambda name=name: contents() if name == "face_synthetics" else FAKES[name]().files for name in names]


SOURCES = {
    "renders": fakes("replicator", "solo", "easysynth", "infinigen", "kubric", "airsim"),
    "blenderproc": fakes("coco", "blenderproc"),
    "cutouts": [cutouts],
    "carla": [carla],
    "old_carla": [carla],
    "export": fakes("labelme_json", "labelme", "label_studio", "supervisely", "cvat", "roboflow", "coco"),
    "dataset_1000.zip": fakes("face_synthetics", "synth_face", "synth_human"),
    "faces": fakes("celebamask_hq", "lapa", "helen"),
    "streets": fakes("cityscapes", "acdc", "gta5", "urbansyn", "synthia", "synscapes", "camvid"),
    "scenes": fakes("ade20k", "voc"),
    "own": fakes("segnet"),
    "my_pictures": [painted],
    "smooth": [lambda: painted(leaf=(0, 200, 30))],
}


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[1].split()[2])
def test_each_row_of_the_table_imports_what_it_says(tmp_path, monkeypatch, row):
    monkeypatch.chdir(tmp_path)
    python, script, source, out, *options = shlex.split(row[1].strip("`"))
    assert (python, script) == ("python", "scripts/import_dataset.py")
    make_folder(tmp_path / "photographs", {"a.png": png(np.full((64, 64, 3), 9, np.uint8))})
    (tmp_path / "colours.json").write_text(json.dumps(COLOURS))
    for make in SOURCES[source]:
        files = make()
        (make_zip if source.endswith(".zip") else make_folder)(tmp_path / source, files)
        result = run(source, out, *options)
        assert result["written"] >= 9 and (result["damaged"], result["problems"]) == (0, 0)
        (tmp_path / source).unlink() if source.endswith(".zip") else shutil.rmtree(tmp_path / source)
        shutil.rmtree(tmp_path / out)


def test_the_table_has_a_fake_for_each_row_and_names_every_format():
    assert list(dict.fromkeys(row[1].split()[2] for row in TABLE)) == list(SOURCES)
    told = re.sub("[^a-z0-9]", "", "".join(row[0] for row in TABLE).lower())
    called = {"voc": "pascalvoc", "labelme_json": "labelme", "segnet": "segnet", "celebamask_hq": "celebamaskhq"}
    for name in FORMATS:
        assert called.get(name, name.replace("_", "")) in told, name
    assert SPLIT in DATA


NO_READER = {
    "YOLO's outlines": ("data.yaml", "train/images/a.jpg", "train/labels/a.txt"),
    "CVAT's XML": ("annotations.xml", "images/a.jpg"),
    "VIA's project": ("via_project_1Jan2026.json", "a.jpg"),
    "older Perception packages of Unity": ("Dataset1/captures_000.json", "RGB1/rgb_2.png"),
    "Mapillary Vistas": ("config_v2.0.json", "training/v2.0/labels/a.png", "training/images/a.jpg"),
    "Hypersim": ("ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.semantic.hdf5",),
    "hdf5 files": ("cam_1.hdf5",),
    "AirSim's recording": ("airsim_rec.txt", "images/img_Drone_0_0_1.png"),
    "TFRecord files": ("train.tfrecord-00000-of-00100",),
    "Label Studio's masks as PNG": ("task-1-annotation-1-by-1-tag-leaf-0.png", "leaf.jpg"),
}


@pytest.mark.parametrize("kind", NO_READER)
def test_a_known_format_without_a_reader_is_named_with_the_way_out(kind):
    with pytest.raises(InputError, match=r"SOURCE has the marks of no known data set") as caught:
        recognise(listed(dict.fromkeys(NO_READER[kind], b"")), LeftOut())
    text = str(caught.value)
    assert f"It looks like {kind}: " in text and "\n" not in text
