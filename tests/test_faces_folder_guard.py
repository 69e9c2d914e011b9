"""No face is ever drawn among a user's pictures, and only faces that are proven ours are called so."""

import json

import pytest
from PIL import Image

from seg_recipe.faces import make_faces
from seg_recipe.faces.ours import is_drawn
from seg_recipe.finetuning.provenance import is_all_drawn, stands_before_photographs
from tests import finetune_runs as runs
from tests import tiny

LAYOUTS = {
    "ade20k": ["images/training/a.jpg", "annotations/training/a.png", "objectInfo150.txt"],
    "ade20k without a file": ["images/training/a.jpg", "annotations/training/a.png"],
    "images and masks": ["images/a.png", "masks/a.png"],
    "coco": ["train2017/a.jpg", "annotations/instances_train2017.json"],
    "voc": ["JPEGImages/2007_000032.jpg", "SegmentationClass/2007_000032.png"],
    "one level too deep": ["mine/train/images/a.png", "mine/train/annotations/a_seg.png"],
    "two levels too deep": ["x/mine/train/images/a.png", "x/mine/train/annotations/a_seg.png"],
    "inside train": ["images/a.png", "annotations/a_seg.png"],
    "metadata of imagefolder": ["metadata.jsonl", "a.jpg"],
    "empty": [],
}
WAYS_OUT = {
    "ade20k": "python scripts/import_dataset.py",
    "ade20k without a file": "python scripts/import_dataset.py",
    "images and masks": "python scripts/import_dataset.py",
    "coco": "It is in the layout of coco",
    "voc": "It looks like Pascal VOC's folders",
    "one level too deep": "/mine.",
    "two levels too deep": "/x/mine.",
    "inside train": "This is one half of the first",
    "empty": "Is its disk mounted?",
}


def made(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".png", ".jpg")):
            Image.new("L", (8, 8)).save(folder / name)
        else:
            (folder / name).write_text('{"file_name": "a.jpg", "text": "mine"}\n')
    return folder


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guard")
    tiny.segformer().save_pretrained(folder / "model")
    return folder


def faces_recipe(place, dataset, **changes):
    """A recipe that renders, as quickstart.yaml does."""
    own = {
        "generate_faces": 12,
        "generate_size": 48,
        "val_fraction": 0.4,
        "max_steps": 2,
        "eval_steps": 2,
        "save_steps": 2,
    }
    return runs.write_recipe(place, dataset=str(dataset), labels="face", **own | changes)


@pytest.mark.slow
@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_face_is_drawn_into_what_is_not_ours(place, tmp_path, layout, typed):
    data = made(tmp_path / "data", LAYOUTS[layout])
    before = tree(data)
    recipe = faces_recipe(place, tmp_path / "own" if typed else data, output_dir=str(tmp_path / "run"))
    for options in ((), ("--check",), ("--generate_faces", 12)):
        if layout == "empty" and options[:1] == ("--generate_faces",):
            continue  # an empty folder is rendered into where that was typed
        with pytest.raises(ValueError) as refusal:
            runs.train(recipe, *(["--dataset", data] if typed else []), *options)
        assert tree(data) == before and not (tmp_path / "own").exists()
        wanted = (
            "generate_faces has no effect" if options[:1] == ("--generate_faces",) else WAYS_OUT.get(layout, "holds")
        )
        assert wanted in str(refusal.value) and "delete" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_make_faces_draws_into_new_empty_and_own_folders_only(tmp_path, layout):
    data = made(tmp_path / "data", LAYOUTS[layout])
    if layout == "empty":
        assert make_faces(data, 2, 32, workers=1, progress=False).drawn == 2
        assert make_faces(data, 3, 32, workers=1, progress=False).drawn == 1
        return
    before = tree(data)
    with pytest.raises(ValueError, match=r"was not made by make_faces.*Name another folder"):
        make_faces(data, 2, 32, workers=1, progress=False)
    assert tree(data) == before


@pytest.mark.long
def test_the_recipes_own_folder_is_rendered_into_where_it_is_absent_ours_or_holds_ours_alone(place, tmp_path, capsys):
    make_faces(tmp_path / "input" / "other", 2, 32, workers=1, progress=False)
    (tmp_path / "input" / "train" / "images").mkdir(parents=True)  # a rendering that was killed at once
    recipe = faces_recipe(place, tmp_path / "input", output_dir=str(tmp_path / "run"))
    runs.train(recipe)
    assert len(list((tmp_path / "input").glob("*/images/*.png"))) == 12
    capsys.readouterr()
    runs.train(recipe, "--resume", "never")
    assert "generate_" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_check_draws_no_face_where_the_run_would(place, tmp_path, capsys):
    runs.train(faces_recipe(place, tmp_path / "faces", output_dir=str(tmp_path / "run")), "--check")
    said = capsys.readouterr().out
    assert "Check passed" in said and "faces in a temporary folder" in said
    assert not (tmp_path / "faces").exists() and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_typed_data_set_is_read_as_it_is_whatever_the_recipe_renders(place, tmp_path, capsys):
    """Also one with a metadata.jsonl as other programs write it."""
    data = tiny.folder(tmp_path / "data")
    (data / "metadata.jsonl").write_text(json.dumps({"file_name": "train/images/000001.png"}) + "\n")
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(tiny.LABELS.to_json()))
    before = tree(data)
    recipe = faces_recipe(place, tmp_path / "own", output_dir=str(tmp_path / "run"))
    runs.train(recipe, "--dataset", data, "--labels", labels, "--check")
    assert "Check passed" in capsys.readouterr().out and tree(data) == before


def test_an_id_on_the_hub_is_asked_of_the_hub_though_the_recipe_renders(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = faces_recipe(place, tmp_path / "own", output_dir=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="somebody/faces is no folder here"):
        runs.train(recipe, "--dataset", "somebody/faces")
    assert not (tmp_path / "somebody").exists()


@pytest.mark.slow
def test_faces_are_proven_ours_by_the_content_of_each_file(tmp_path):
    def drawn(name, **options):
        make_faces(tmp_path / name, 6, 32, val_fraction=0.3, workers=1, progress=False, **options)
        return tmp_path / name

    whole = drawn("whole")
    assert is_all_drawn(str(whole))
    images = sorted((whole / "train" / "images").glob("*.png"))
    assert is_drawn(images[0]) and not stands_before_photographs(str(whole))

    replaced = drawn("replaced")
    Image.new("RGB", (32, 32)).save(replaced / "train" / "images" / images[0].name)
    added = drawn("added")
    Image.new("RGB", (32, 32)).save(added / "train" / "images" / "mine.png")
    Image.new("L", (32, 32)).save(added / "train" / "annotations" / "mine_seg.png")
    changed = drawn("changed")
    mask = changed / "train" / "annotations" / f"{images[0].stem}_seg.png"
    Image.open(mask).save(mask)
    photographs = made(tmp_path / "photographs", [])
    Image.new("RGB", (64, 64), "green").save(photographs / "a.png")
    before = drawn("before", backgrounds=photographs)
    foreign = tiny.folder(tmp_path / "foreign")
    (foreign / "metadata.jsonl").write_bytes((whole / "metadata.jsonl").read_bytes())
    for other in (replaced, added, changed, before, foreign):
        assert not is_all_drawn(str(other)), other.name
    assert stands_before_photographs(str(before)) and not is_all_drawn("owner/faces")

    judged = drawn("judged")
    Image.new("RGB", (32, 32)).save(judged / "val" / "images" / "mine.png")
    Image.new("L", (32, 32)).save(judged / "val" / "annotations" / "mine_seg.png")
    assert is_all_drawn(str(judged))
