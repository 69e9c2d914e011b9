"""Tiny copies of the layouts that are imported, with the masks that must come out, worked out in another way than by
the readers.
"""

import base64
import functools
import io
import itertools
import json
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from seg_recipe.importers import SourceFile
from seg_recipe.labels import FACE
from tests.face_files import png

H, W = 8, 12
"""Height and width of the pictures, unequal so that a mixed-up axis shows."""


@dataclass
class Fake:
    """files: name -> bytes. masks: id in DEST -> the ids wanted. names: the label space wanted. sets: id -> published
    set.
    """

    files: dict
    masks: dict
    names: tuple
    groups: dict = field(default_factory=dict)
    sets: dict = field(default_factory=dict)
    options: list = field(default_factory=list)
    left_out: dict = field(default_factory=dict)


def listed(files):
    """The files as a reader gets them, name -> SourceFile."""
    return {name: SourceFile(name, len(data), functools.partial(io.BytesIO, data)) for name, data in files.items()}


def rng(*seed):
    return np.random.default_rng(zlib.crc32(repr(seed).encode()))


def photo(name, height=H, width=W):
    return rng(name, "photo").integers(0, 256, (height, width, 3), dtype=np.uint8)


def jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg", quality=95)
    return stream.getvalue()


def palette_png(ids):
    picture = Image.fromarray(ids.astype(np.uint8), "L").convert("P")
    picture.putdata(ids.ravel().tolist())
    picture.putpalette([(37 * i) % 256 for i in range(768)])
    stream = io.BytesIO()
    picture.save(stream, "png")
    return stream.getvalue()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def synth_face():
    files, masks, groups = {}, {}, {}
    for person in range(12):
        for frame in range(3):
            name = f"{person:07d}_{frame:03d}"
            parts = rng(name, "parts").integers(0, 13, (H, W), dtype=np.uint8)
            files |= {f"synth_face/img_{name}.jpg": jpeg(photo(name)), f"synth_face/segm_parts_{name}.png": png(parts)}
            wanted = parts.copy()
            for label, kind in (
                (13, "hair"),
                (14, "beard"),
                (16, "glasses"),
                (17, "headwear"),
                (18, "facewear"),
                (15, "clothing"),
            ):
                if (person + frame + label) % 3:  # not everybody has everything
                    cover = rng(name, kind).integers(0, 256, (H, W), dtype=np.uint8)
                    files[f"synth_face/segm_{kind}_{name}.png"] = png(cover)
                    wanted = np.where(cover / 255 >= 0.5, label, wanted)
            files[f"synth_face/segm_eyebrows_{name}.png"] = png(np.full((H, W), 255, np.uint8))
            files[f"synth_face/metadata_{name}.json"] = b"{}"
            masks[name], groups[name] = wanted, f"{person:07d}"
    return Fake(files, masks, FACE.names, groups, left_out={"overlay that is no class": 36, "other file": 36})


CELEBA = {  # part: (id, name in the label space)
    "skin": (1, "skin"), "nose": (2, "nose"), "eye_g": (3, "glasses"), "l_eye": (4, "right_eye"), "r_eye": (5,
    "left_eye"),
    "l_brow": (6, "right_brow"), "r_brow": (7, "left_brow"), "l_ear": (8, "right_ear"), "r_ear": (9, "left_ear"),
    "mouth": (10, "mouth_interior"), "u_lip": (11, "top_lip"), "l_lip": (12, "bottom_lip"), "hair": (13, "hair"),
    "hat": (14, "headwear"),
    "ear_r": (15, "earring"), "neck_l": (16, "necklace"), "neck": (17, "neck"), "cloth": (18, "clothing"),
}  # fmt: skip


def celebamask_hq(identities=True, partition=False):
    files, masks, groups, sets = {}, {}, {}, {}
    mapping, persons, lists = ["idx\torig_idx\torig_file"], ["header"], []
    for number in range(12):
        name = f"{number:05d}"
        wanted = np.zeros((H // 2, W // 2), np.uint8)
        for part, (label, _) in CELEBA.items():
            if rng(name, part, "there").random() < 0.7 or part == "skin":
                cover = rng(name, part).random((H // 2, W // 2)) < 0.25
                stored = np.uint8(255) * cover
                # some are grey and some have three equal channels
                data = png(stored if number % 2 else np.stack([stored] * 3, axis=-1))
                files[f"CelebAMask-HQ/CelebAMask-HQ-mask-anno/{number // 5}/{name}_{part}.png"] = data
                wanted[cover] = label
        files[f"CelebAMask-HQ/CelebA-HQ-img/{number}.jpg"] = jpeg(photo(name))
        mapping.append(f"{number:<8d}{number + 100:<12d}{number + 101:06d}.jpg")
        persons.append(f"{number + 101:06d}.jpg {number // 3}")
        lists.append(f"{number + 101:06d}.jpg {min(number // 5, 2)}")
        masks[name] = np.kron(wanted, np.ones((2, 2), np.uint8))
        groups[name] = f"person {number // 3}" if identities else name
        sets[name] = ("train", "val", "test")[min(number // 5, 2)]
    files["CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt"] = "\n".join(mapping).encode()
    if identities:
        files["CelebAMask-HQ/identity_CelebA.txt"] = "\n".join(persons).encode()
    if partition:
        files["CelebAMask-HQ/list_eval_partition.txt"] = "\n".join(lists).encode()
    return Fake(
        files, masks, ("background", *(name for _, name in CELEBA.values())), groups, sets if partition else {}
    )


ELEVEN = (
    "background", "skin", "left_brow", "right_brow", "left_eye", "right_eye", "nose", "top_lip", "mouth_interior",
    "bottom_lip", "hair",
)  # fmt: skip


def lapa():
    files, masks, sets = {}, {}, {}
    for published, numbers in (("train", range(6)), ("val", range(6, 9)), ("test", range(9, 11))):
        for number in numbers:
            name = f"{number}00{number}_0"
            ids = rng(name).integers(0, 11, (H, W), dtype=np.uint8)
            files[f"LaPa/{published}/images/{name}.jpg"] = jpeg(
                photo(name) if number else photo(name)[..., 0]
            )  # one is grey
            files[f"LaPa/{published}/labels/{name}.png"] = png(ids)
            files[f"LaPa/{published}/landmarks/{name}.txt"] = b"106\n"
            masks[name], sets[name] = ids, published
    return Fake(files, masks, ELEVEN, sets=sets, left_out={"landmark file (not used)": 11})


def helen():
    files, masks, sets, lists = {}, {}, {}, {"exemplars": [], "tuning": [], "testing": []}
    for number in range(9):
        name, text = f"23219{number}_1", list(lists)[number // 3]
        maps = rng(name).integers(0, 256, (11, H, W), dtype=np.uint8)
        maps[:, 0, 0] = maps[:, 0, 1] = 7  # equal ones: the first
        files[f"SmithCVPR2013_dataset_resized/images/{name}.jpg"] = jpeg(photo(name))
        for label in range(11):
            files[f"SmithCVPR2013_dataset_resized/labels/{name}/{name}_lbl{label:02d}.png"] = png(maps[label])
        lists[text].append(f"{number} , {name}")
        masks[name], sets[name] = maps.argmax(axis=0).astype(np.uint8), ("train", "val", "test")[number // 3]
    for text, lines in lists.items():
        files[f"SmithCVPR2013_dataset_resized/{text}.txt"] = "\n".join([*lines, ""]).encode()
    return Fake(files, masks, ELEVEN, sets=sets)


VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)


def voc():
    files, masks, sets, lists = {}, {}, {}, {"train": [], "val": []}
    for number in range(10):
        name = f"2007_{number:06d}"
        ids = rng(name).choice([*range(21), 255], (H, W)).astype(np.uint8)
        files[f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg"] = jpeg(photo(name))
        files[f"VOCdevkit/VOC2012/SegmentationClass/{name}.png"] = palette_png(ids)
        masks[name], sets[name] = ids, "train" if number < 6 else "val"
        lists[sets[name]].append(name)
    files["VOCdevkit/VOC2012/JPEGImages/2008_000001.jpg"] = jpeg(photo("no mask"))
    for published, names in lists.items():
        files[f"VOCdevkit/VOC2012/ImageSets/Segmentation/{published}.txt"] = "\n".join([*names, ""]).encode()
    return Fake(files, masks, tuple(VOC_NAMES.split()), sets=sets, left_out={"image without a mask": 1})


def camvid():
    files, masks, sets = {}, {}, {}
    for published, numbers in (("train", range(5)), ("val", range(5, 8)), ("test", range(8, 10))):
        for number in numbers:
            name = f"0001TP_{number:06d}"
            ids = rng(name).integers(0, 12, (H, W), dtype=np.uint8)
            files |= {
                f"CamVid/{published}/{name}.png": png(photo(name)),
                f"CamVid/{published}annot/{name}.png": palette_png(ids),
            }
            masks[name], sets[name] = np.where(ids == 11, 255, ids).astype(np.uint8), published
    names = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
    return Fake(files, masks, names, sets=sets)


def infinigen():
    """The numbers of objects differ from scene to scene: only names tell what is what."""
    files, masks, groups = {}, {}, {}
    classes = ("background", "Rock", "Terrain", "Tree")
    for scene in range(8):
        objects = {3 + scene: "Tree.001", 40: "Tree(7).spawn", 7000 + scene: "Rock", 2: "Terrain"}
        for frame in range(2):
            stem, folder = f"0_0_{frame:04d}_0", f"outputs/s{scene}/frames"
            values = rng(scene, stem).choice([*objects, 999], (2 * H, 2 * W)).astype(np.int32)
            listed = [{"object_index": index, "name": name, "num_verts": 8} for index, name in objects.items()]
            files[f"{folder}/Image/camera_0/Image_{stem}.png"] = png(photo(f"{scene} {stem}"))
            files[f"{folder}/ObjectSegmentation/camera_0/ObjectSegmentation_{stem}.npy"] = npy(values)
            files[f"{folder}/Objects/camera_0/Objects_{stem}.json"] = json.dumps(listed).encode()
            ids = {
                **{index: classes.index(name.split(".")[0].split("(")[0]) for index, name in objects.items()},
                999: 0,
            }
            name = f"outputs_s{scene}-camera_0-{stem}"
            masks[name] = np.array(
                [[ids[int(values[2 * y + 1, 2 * x + 1])] for x in range(W)] for y in range(H)], np.uint8
            )
            groups[name] = f"outputs/s{scene}"
    return Fake(files, masks, classes, groups)


SOLO_COLOURS = {"background": (0, 0, 0), "left_leaf": (255, 0, 10), "right_leaf": (0, 255, 10), "pot": (9, 9, 200)}
_UNITY = "type.unity.com/unity.solo."


def solo():
    files, masks, groups = {}, {}, {}
    for sequence in range(8):
        for step in range(2):
            folder, stem = f"solo/sequence.{sequence}", f"step{step}"
            ids = rng(sequence, stem, "solo").integers(0, 4, (H, W), dtype=np.uint8)
            colours = np.array([[*colour, 255] for colour in SOLO_COLOURS.values()], np.uint8)
            shown = [
                {"labelName": name, "pixelValue": [*colour, 255]}
                for name, colour in SOLO_COLOURS.items()
                if name != "background"
            ]
            semantic = f"{stem}.camera.semantic segmentation.png"
            annotations = [
                {"@type": _UNITY + "BoundingBox2DAnnotation", "values": []},
                {"@type": _UNITY + "SemanticSegmentationAnnotation", "filename": semantic, "instances": shown},
            ]
            frame = {"step": step, "captures": [{"filename": f"{stem}.camera.png", "annotations": annotations}]}
            files[f"{folder}/{stem}.frame_data.json"] = json.dumps(frame).encode()
            picture = photo(f"{sequence} {stem}")
            files[f"{folder}/{stem}.camera.png"] = png(np.dstack([picture, np.full((H, W), 255, np.uint8)]))
            files[f"{folder}/{semantic}"] = png(colours[ids])
            name = f"solo_-sequence_{sequence}-{stem}"
            masks[name], groups[name] = ids, f"solo/sequence.{sequence}"
    files["solo/metadata.json"] = b"{}"
    return Fake(files, masks, tuple(SOLO_COLOURS), groups, left_out={"other file": 1})


def labelme(texts=False, names=("_background_", "leaf", "stem")):
    """What labelme2voc writes; with `texts` and a split of one's own."""
    files, masks, sets = {"class_names.txt": "\n".join(names).encode()}, {}, {}
    for number in range(10):
        name = f"{number:03d}"
        ids = rng(name, "labelme").choice([0, 1, 2, 255], (H, W)).astype(np.uint8)
        files[f"JPEGImages/{name}.jpg"] = jpeg(photo(name))
        files[f"SegmentationClass/{name}.png"] = palette_png(ids)
        files[f"SegmentationClassNpy/{name}.npy"] = npy(np.where(ids == 255, -1, ids).astype(np.int32))
        files[f"SegmentationClassVisualization/{name}.jpg"] = jpeg(photo(name))
        masks[name], sets[name] = ids, "train" if number < 7 else "val"
    if texts:
        for published in ("train", "val"):
            lines = [name for name in sets if sets[name] == published]
            files[f"ImageSets/Segmentation/{published}.txt"] = "\n".join(lines).encode()
    files = {f"export/{name}": data for name, data in files.items()}
    return Fake(files, masks, ("background", "leaf", "stem"), sets=sets if texts else {}, left_out={"other file": 20})


def labelme_json():
    """What labelme saves: outlines in the order in which they were drawn, each picture with a JSON."""
    files, masks = {}, {}
    for number in range(10):
        name, shapes, wanted = f"{number:03d}", [], np.zeros((H, W), np.uint8)
        for place, (label, value) in enumerate((("stem", 2), ("leaf", 1), ("_background_", 0), ("__ignore__", 255))):
            points = rng(name, label, "outline").uniform(-1, W, (3, 2)).round(2)
            if place < 1 + number % 4:
                shapes.append({"label": label, "points": points.tolist(), "shape_type": "polygon", "group_id": None})
                wanted[centres_within(points)] = value
        shapes.append({"label": "note", "points": [[1, 1]], "shape_type": "point"})
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"..\\photos\\{name}.jpg",
                   "imageData": None, "imageHeight": H, "imageWidth": W}  # fmt: skip
        files |= {f"set/json/{name}.json": json.dumps(content).encode(), f"set/photos/{name}.jpg": jpeg(photo(name))}
        masks[f"set_photos_{name}"] = wanted
    return Fake(files, masks, ("background", "leaf", "stem"))


def brushed(alpha):
    """Label Studio's run lengths of an RGBA picture with this alpha channel, in both forms that its decoder knows."""
    flat = np.repeat(alpha.ravel(), 4).tolist()
    bits, lengths = (
        f"{len(flat):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16)),
        (3, 4, 8, 16),
    )
    for place, (value, run) in enumerate(itertools.groupby(flat)):
        count = len(list(run))
        kind = next(kind for kind, size in enumerate(lengths) if count <= 2**size)
        values = f"{value:08b}" * (1 if place % 2 else count)
        bits += f"{place % 2}{kind:02b}{count - 1:0{lengths[kind]}b}{values}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def label_studio():
    """Its JSON: brushes by run lengths or, in every third picture, by PNG; polygons in percent; what is no area."""
    files, masks, tasks = {}, {}, []
    for number in range(10):
        name, wanted, results = f"plant{number}", np.zeros((H, W), np.uint8), []
        size = {"original_width": W, "original_height": H, "image_rotation": 0, "from_name": "tag", "to_name": "image"}
        for place, (label, value) in enumerate((("stem", 2), ("leaf", 1), ("background", 0))[: number % 4]):
            points = rng(name, place, "outline").uniform(-1, 101, (3, 2)).round(2)
            cover = centres_within(points * (W / 100, H / 100))
            key = "polygonlabels" if (place + number) % 2 else "brushlabels"
            shape = {"points": points.tolist()} if key == "polygonlabels" else {"format": "rle"}
            if key == "brushlabels" and number % 3 == 2:
                files[f"set/masks/task-{number}-annotation-{number}7-by-1-tag-{label}-0.png"] = png(
                    cover * np.uint8(255)
                )
            elif key == "brushlabels":
                shape["rle"] = brushed(cover * np.uint8(place + 1))
            results.append({**size, "id": f"r{place}", "type": key, "value": {**shape, key: [label]}})
            wanted[cover] = value
        box = {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": ["leaf"]}
        results.append({**size, "type": "rectanglelabels", "value": box})
        done = {"id": f"{number}7", "created_at": "2026-01-01", "was_cancelled": False, "result": results}
        skipped = {"id": 5, "created_at": "2026-02-02", "was_cancelled": True, "result": []}
        prefix = "" if number % 2 else "0a1b2c3d-"
        address = f"/data/upload/1/{prefix}{name}.jpg" if number % 5 else f"/data/local-files/?d=pots%5C{name}.jpg"
        tasks.append({"id": number, "data": {"text": "a pot", "image": address}, "annotations": [done, skipped]})
        files[f"set/photos/{name}.jpg"] = jpeg(photo(name))
        masks[name] = wanted
    files["set/project-1-at-2026-01-01-00-00-0a1b2c3d.json"] = json.dumps(tasks).encode()
    return Fake(files, masks, ("background", "leaf", "stem"))


def packed(cover, palette):
    """A bitmap as Supervisely packs it: a PNG with a transparent 0 (or of plain grey), zlib, base64."""
    picture = Image.fromarray(cover.astype(np.uint8) * (1 if palette else 255))
    stream = io.BytesIO()
    if palette:
        picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(stream, "png", **({"transparency": 0} if palette else {}))
    return base64.b64encode(zlib.compress(stream.getvalue())).decode()


def supervisely():
    """Polygons with holes, bitmaps that lie at a place of their own, and a box."""
    classes = [
        {"title": "stem", "shape": "any"},
        {"title": "leaf", "shape": "any"},
        {"title": "pot", "shape": "point"},
    ]
    files, masks, sets = {"plants/meta.json": json.dumps({"classes": classes, "tags": []}).encode()}, {}, {}
    for number in range(12):
        folder, published = (("train", "train"), ("train", "train"), ("valid", "val"))[number % 3]
        name, wanted, objects = f"{number:03d}", np.zeros((H, W), np.uint8), []
        for place, (label, value) in enumerate((("leaf", 2), ("stem", 1), ("leaf", 2))[: 1 + number % 3]):
            if (place + number) % 2:
                outline, hole = (rng(name, place, part).uniform(-1, W, (3, 2)).round(2) for part in "oh")
                cover = centres_within(outline) & ~centres_within(hole)
                points = {"exterior": outline.tolist(), "interior": [hole.tolist()]}
                objects.append({"classTitle": label, "geometryType": "polygon", "points": points})
            else:
                part = rng(name, place, "part").integers(0, 2, (3, 4)).astype(bool)
                top, left = rng(name, place, "origin").integers(0, (H - 2, W - 2)).tolist()  # some leave the picture
                cover = np.zeros((H + 3, W + 4), bool)
                cover[top : top + 3, left : left + 4] = part
                cover = cover[:H, :W]
                bitmap = {"data": packed(part, palette=number % 4 < 2), "origin": [left, top]}
                objects.append({"classTitle": label, "geometryType": "bitmap", "bitmap": bitmap})
            wanted[cover] = value
        corners = {"exterior": [[0, 0], [5, 5]], "interior": []}
        objects.append({"classTitle": "leaf", "geometryType": "rectangle", "points": corners})
        content = {"size": {"height": H, "width": W}, "tags": [], "objects": objects}
        files |= {f"plants/{folder}/img/{name}.jpg": jpeg(photo(f"p{name}")),
                  f"plants/{folder}/ann/{name}.jpg.json": json.dumps(content).encode()}  # fmt: skip
        masks[f"plants_{folder}-{name}"], sets[f"plants_{folder}-{name}"] = wanted, published
    files["plants/README.md"] = b"plants"
    return Fake(files, masks, ("background", "stem", "leaf"), sets=sets, left_out={"other file": 1})


CVAT_COLOURS = {"background": (0, 0, 0), "leaf": (250, 50, 83), "stem: young": (51, 221, 255)}


def cvat(subsets=False):
    files, masks, sets = {}, {}, {}
    for number in range(10):
        name = f"{number:03d}"
        ids = rng(name, "cvat").integers(0, 3, (H, W), dtype=np.uint8)
        files[f"JPEGImages/{name}.jpg"] = jpeg(photo(name))
        files[f"SegmentationClass/{name}.png"] = png(np.array([*CVAT_COLOURS.values()], np.uint8)[ids])
        files[f"SegmentationObject/{name}.png"] = palette_png(ids)
        masks[name], sets[name] = ids, "train" if number < 7 else "val"
    listed = {"Train": "train", "Validation": "val"} if subsets else {"default": None}
    for text, published in listed.items():
        lines = [name for name in sets if published in (None, sets[name])]
        files[f"ImageSets/Segmentation/{text}.txt"] = "\n".join(lines).encode()
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in CVAT_COLOURS.items()]
    files["labelmap.txt"] = "\n".join(["# label:color_rgb:parts:actions", *lines, ""]).encode()
    files = {f"task/{name}": data for name, data in files.items()}
    left_out = {"other file": 10 if subsets else 11}
    return Fake(files, masks, tuple(CVAT_COLOURS), sets=sets if subsets else {}, left_out=left_out)


def centres_within(points, height=H, width=W):
    """The pixels whose centres a polygon holds, by matplotlib."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return Outline(points).contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(height, width)


def run_lengths_of(cover):
    """COCO's run lengths, column by column, the first outside."""
    flat = cover.T.ravel().tolist()
    runs = [len(list(run)) for _, run in itertools.groupby(flat)]
    return [0, *runs] if flat[0] else runs


def coco():
    """What Roboflow writes: a JSON in each split's folder, and a category that only holds the others."""
    files, masks, sets, groups = {}, {}, {}, {}
    categories = [
        {"id": 0, "name": "plants", "supercategory": "none"},
        {"id": 1, "name": "leaf", "supercategory": "plants"},
        {"id": 2, "name": "stem", "supercategory": "plants"},
    ]
    for published, folder, numbers in (
        ("train", "train", range(8)),
        ("val", "valid", range(8, 12)),
        ("test", "test", [12]),
    ):
        images, annotations = [], []
        for number in numbers:
            name = f"field{number // 2}_jpg.rf.{number:02x}ab"
            images.append({"id": number, "file_name": f"{name}.jpg", "height": H, "width": W})
            files[f"export/{folder}/{name}.jpg"] = jpeg(photo(name))
            covers = []
            for place in range(number % 4):  # some have no object
                points = rng(name, place, "outline").uniform(-2, W, (3, 2)).round(2)
                cover, crowd = centres_within(points), place == 2
                shape = [points.ravel().tolist()]
                if crowd:
                    shape = {"size": [H, W], "counts": run_lengths_of(cover)}
                label = 1 + (number + place) % 2
                annotations.append(
                    {"id": 100 * number + place, "image_id": number, "category_id": label, "iscrowd": int(crowd),
                     "segmentation": shape, "bbox": [0, 0, 1, 1], "area": 1}
                )  # fmt: skip
                covers.append((not crowd, -int(cover.sum()), label, cover))
            wanted = np.zeros((H, W), np.uint8)
            for _, _, label, cover in sorted(covers, key=lambda found: found[:2]):
                wanted[cover] = label
            key = name.replace(".", "_")
            masks[key], sets[key], groups[key] = wanted, published, f"field{number // 2}_jpg"
        content = {"images": images, "annotations": annotations, "categories": categories, "info": {}}
        files[f"export/{folder}/_annotations.coco.json"] = json.dumps(content).encode()
    files["export/README.roboflow.txt"] = b"exported"
    return Fake(files, masks, ("background", "leaf", "stem"), groups, sets, left_out={"other file": 1})


def roboflow():
    """Masks of Roboflow, with a class list in each split's folder; some pictures have several copies."""
    files, masks, sets, groups = {}, {}, {}, {}
    text = b"Pixel Value, Class\r\n0, background\r\n1, leaf\r\n3, stem\r\n"
    for published, folder, numbers in (("train", "train", range(6)), ("val", "valid", range(6, 9))):
        files[f"export/{folder}/_classes.csv"] = text
        for number in numbers:
            name = f"field{number // 2}_jpg.rf.{number:02x}cd"
            ids = rng(name, "roboflow").integers(0, 3, (H, W), dtype=np.uint8)
            files[f"export/{folder}/{name}.jpg"] = jpeg(photo(name))
            files[f"export/{folder}/{name}_mask.png"] = png(np.array([0, 1, 3], np.uint8)[ids])
            key = name.replace(".", "_")
            masks[key], sets[key], groups[key] = ids, published, f"field{number // 2}_jpg"
    return Fake(files, masks, ("background", "leaf", "stem"), groups, sets)


STREETS = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
"""Of the 19 classes, in the order of their trainIds."""


def street(name):
    """What must come out, trainIds with 255; and the labelIds of that, in which 255 is one of the other ids."""
    wanted = rng(name, "street").choice([*range(19), 255], (H, W)).astype(np.uint8)
    others = rng(name, "other").choice([0, 4, 6, 9, 14, 29, 34], (H, W))
    return wanted, np.where(wanted == 255, others, np.array([*LABEL_IDS, *[0] * 237])[wanted]).astype(np.uint8)


def cityscapes():
    files, masks, sets = {}, {}, {}
    for split, town, numbers in (
        ("train", "aachen", range(6)),
        ("val", "munster", range(6, 8)),
        ("test", "bonn", [8]),
    ):
        for number in numbers:
            name = f"{town}_{number:06d}_000019"
            wanted, ids = street(name)
            files |= {
                f"data/leftImg8bit/{split}/{town}/{name}_leftImg8bit.png": png(photo(name)),
                f"data/gtFine/{split}/{town}/{name}_gtFine_labelIds.png": png(ids),
                f"data/gtFine/{split}/{town}/{name}_gtFine_labelTrainIds.png": png(wanted),
                f"data/gtFine/{split}/{town}/{name}_gtFine_polygons.json": b"{}",
            }
            masks[name], sets[name] = wanted, split
    return Fake(files, masks, STREETS, sets=sets, left_out={"other file": 18})


def acdc():
    files, masks, sets = {}, {}, {}
    for number in range(9):
        split, weather = ("train", "train", "val")[number % 3], ("fog", "night")[number % 2]
        name = f"GOPR{number:04d}_frame_000041"
        wanted, ids = street(name)
        place = f"{weather}/{split}/GOPR{number:04d}/{name}"
        files[f"data/rgb_anon/{place}_rgb_anon.png"] = png(photo(name))
        files[f"data/gt/{place}_gt_labelIds.png"] = png(ids)
        masks[name], sets[name] = wanted, split
    return Fake(files, masks, STREETS, sets=sets)


def gta5():
    files, masks = {}, {}
    for number in range(12):
        name = f"{number:05d}"
        wanted, ids = street(name)
        picture = Image.open(io.BytesIO(palette_png(ids)))
        colours = picture.getpalette()
        colours[21:24], colours[78:81] = (128, 64, 128), (0, 0, 142)
        picture.putpalette(colours)
        stream = io.BytesIO()
        picture.save(stream, "png")
        files |= {f"gta/images/{name}.png": png(photo(name)), f"gta/labels/{name}.png": stream.getvalue()}
        masks[name] = wanted
    return Fake(files, masks, STREETS)


def urbansyn():
    files, masks = {}, {}
    for number in range(12):
        wanted, _ = street(f"urban {number}")
        files |= {f"u/rgb/rgb_{number:04d}.png": png(photo(f"u{number}")), f"u/ss/ss_{number:04d}.png": png(wanted)}
        masks[f"{number:04d}"] = wanted
    return Fake(files, masks, STREETS)


def png_of_16_bits(pixels):
    """An RGB PNG of 16 bits a channel, which Pillow does not write; made by hand from the PNG specification."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )  # fmt: skip
    whole = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in chunks)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


SYNTHIA_IDS = [3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11]
"""Of the 19 classes, in the order of their trainIds."""


def synthia():
    files, masks = {}, {}
    for number in range(12):
        name = f"{number:07d}"
        wanted, _ = street(f"synthia {name}")
        others = rng(name, "others").choice([0, 13, 14, 22], (H, W))
        ids = np.where(wanted == 255, others, np.array([*SYNTHIA_IDS, *[0] * 237])[wanted])
        instances = rng(name, "instances").integers(0, 2**16, (H, W))
        pixels = np.dstack([ids, instances, np.zeros_like(ids)]).astype(np.uint16)
        files |= {f"RAND/RGB/{name}.png": png(photo(f"s{name}")), f"RAND/GT/LABELS/{name}.png": png_of_16_bits(pixels),
                  f"RAND/GT/COLOR/{name}.png": png(photo(f"c{name}"))}  # fmt: skip
        masks[name] = wanted
    return Fake(files, masks, STREETS, left_out={"other file": 12})


def synscapes():
    files, masks = {}, {}
    for number in range(1, 13):
        wanted, ids = street(f"synscapes {number}")
        files |= {f"s/img/rgb/{number}.png": png(photo(f"y{number}")), f"s/img/class/{number}.png": png(ids),
                  f"s/img/rgb-2k/{number}.png": png(photo(f"z{number}")), f"s/meta/{number}.json": b"{}"}  # fmt: skip
        masks[f"{number}"] = wanted
    return Fake(files, masks, STREETS, left_out={"other file": 24})


def carla():
    """Tags of 0.9.14 in the red channel, in folders that everybody calls otherwise: read by patterns and the table."""
    files, masks = {}, {}
    for number in range(12):
        tags = rng(number, "carla").integers(1, 20, (H, W), dtype=np.uint8)
        others = rng(number, "instances").integers(0, 256, (H, W, 2), dtype=np.uint8)
        files |= {f"rgb/{number:06d}.png": png(photo(f"carla {number}")),
                  f"semantic/{number:06d}.png": png(np.dstack([tags, others]))}  # fmt: skip
        masks[f"{number:06d}"] = tags - 1
    words = ["--images", "rgb/*.png", "--masks", "semantic/*.png", "--table", "carla-0.9.14"]
    return Fake(files, masks, STREETS, options=words)


def ade20k():
    files, masks, sets = {}, {}, {}
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName", "1\t0.1576\t11664\t1172\t1\twall",
             "2\t0.1072\t6046\t612\t1\tbuilding, edifice", "3\t0.05\t1\t1\t1\tscreen, door",
             "4\t0.05\t1\t1\t1\tscreen, silver"]  # fmt: skip
    files["ADE/objectInfo150.txt"] = "\n".join(lines).encode()
    for split, published, numbers in (("training", "train", range(8)), ("validation", "val", range(8, 12))):
        for number in numbers:
            name = f"ADE_{published}_{number:08d}"
            ids = rng(name, "ade").integers(0, 5, (H, W), dtype=np.uint8)
            files[f"ADE/images/{split}/{name}.jpg"] = jpeg(photo(name))
            files[f"ADE/annotations/{split}/{name}.png"] = png(ids)
            masks[name], sets[name] = np.where(ids == 0, 255, ids - 1).astype(np.uint8), published
    return Fake(files, masks, ("wall", "building", "screen, door", "screen, silver"), sets=sets)


def segnet():
    files, masks, sets = {"own/classes.txt": b"soil\r\nleaf\r\nstem\r\n"}, {}, {}
    for published, numbers in (("train", range(5)), ("val", range(5, 8)), ("test", range(8, 10))):
        for number in numbers:
            name = f"field{number}"
            ids = rng(name, "segnet").choice([0, 1, 2, 255], (H, W)).astype(np.uint8)
            files |= {f"own/{published}/{name}.png": png(photo(name)), f"own/{published}annot/{name}.png": png(ids)}
            masks[name], sets[name] = ids, published
    return Fake(files, masks, ("soil", "leaf", "stem"), sets=sets)


def replicator(
    colours=True, folders=False, prefix="", sequence="", names=("BACKGROUND", "UNLABELLED", "cube", "door")
):
    """The colours, and the ids, of two classes change places from frame to frame.

    folders: one for each camera. prefix: the camera in each file's name instead. sequence: what the frame's number
    follows.
    """
    files, masks = {}, {}
    for number in range(12):
        name, paints = f"{number:04d}", [(0, 0, 0, 0), (0, 0, 0, 255), (140, 255, 25, 255), (140, 25, 255, 255)]
        values = [0, 1, 2, 300]
        if number % 2:
            paints[2], paints[3], values[2], values[3] = paints[3], paints[2], values[3], values[2]
        ids = rng(name, "replicator").integers(0, 4, (H, W), dtype=np.uint8)
        places = [f"Cam/{kind}/" if folders else "out/" for kind in ("rgb", "semantic_segmentation")]
        places = [f"{kind}/{prefix}_" for kind in ("rgb", "semantic_segmentation")] if prefix else places
        name = sequence + name
        files[f"{places[0]}rgb_{name}.png"] = png(np.dstack([photo(name), np.full((H, W), 255, np.uint8)]))
        painted = np.array(paints, np.uint8)[ids] if colours else np.array(values, np.uint16)[ids]
        files[f"{places[1]}semantic_segmentation_{name}.png"] = png(painted)
        keys = map(str, paints if colours else values)
        labels = {key: {"class": label} for key, label in zip(keys, names, strict=True)}
        files[f"{places[1]}semantic_segmentation_labels_{name}.json"] = json.dumps(labels).encode()
        masks[f"{prefix or ('Cam' if folders else 'out') + '_'}-{name}"] = ids
    return Fake(files, masks, names)


EASYSYNTH = {"Undefined": (0, 0, 0), "Road": (255, 0, 10), "Tree, old": (0, 200, 0)}


def easysynth():
    """Two cameras of a rig; the classes as SemanticCsvInterface.cpp prints them, but a name with a comma in quotes."""
    lines = [f'"{name}",{red},{green},{blue}' for name, (red, green, blue) in EASYSYNTH.items()]
    files, masks, groups = {"out/SemanticClasses.csv": "\n".join(lines).encode(), "out/CameraRig.json": b"{}"}, {}, {}
    for camera in ("Left", "Right"):
        files[f"out/{camera}/CameraPoses.csv"] = b"id,tx"
        for number in range(12):
            frame = f"Street.{number:04d}"
            ids = rng(camera, frame, "easysynth").integers(0, 3, (H, W), dtype=np.uint8)
            colours = np.array([*EASYSYNTH.values()], np.uint8)[ids]
            files |= {f"out/{camera}/ColorImage/{frame}.jpeg": jpeg(photo(camera + frame)),
                      f"out/{camera}/SemanticImage/{frame}.png": png(colours)}  # fmt: skip
            name = f"out_{camera}-Street_{number:04d}"
            masks[name], groups[name] = ids, f"out-{frame}"
    return Fake(files, masks, tuple(EASYSYNTH), groups, left_out={"other file": 3})


def airsim():
    """A flight with two cameras; each file has a time of its own, and the record is the only link."""
    colours = {"sky": (70, 130, 180), "tree": (0, 90, 0)}
    files = {"flight/classes.csv": b"sky,70,130,180\ntree,0,90,0\n", "flight/settings.json": b"{}"}
    masks, groups, time = {}, {}, 1600
    lines = ["VehicleName\tTimeStamp\tPOS_X\tPOS_Y\tPOS_Z\tQ_W\tQ_X\tQ_Y\tQ_Z\tImageFile"]
    for moment in range(12):
        names = []
        for camera in ("My_Drone_0", "My_Drone_front_1"):
            ids = rng(moment, camera, "airsim").integers(0, 2, (H, W), dtype=np.uint8)
            rgba = np.dstack([photo(f"{moment}{camera}"), np.full((H, W), 255, np.uint8)])
            for kind, data in ((0, png(rgba)), (5, png(np.array([*colours.values()], np.uint8)[ids]))):
                time += 7
                names.append(f"img_{camera}_{kind}_{time}.png")
                files[f"flight/images/{names[-1]}"] = data
            masks[f"flight-{camera}-{moment:06d}"], groups[f"flight-{camera}-{moment:06d}"] = ids, f"flight-{moment}"
        lines.append("\t".join(["My_Drone", str(time), *"0001000", ";".join([*names, f"img_0_2_{time}.pfm"])]))
    files["flight/airsim_rec.txt"] = ("\n".join(lines) + "\n").encode()
    return Fake(files, masks, tuple(colours), groups, left_out={"other file": 1})


def kubric():
    """Twelve scenes; the instances of each have an order of their own."""
    files, masks, groups = {}, {}, {}
    for scene in range(12):
        order = rng(scene, "kubric").permutation(3).tolist()
        kinds = [{"category": "chair"}, {"shape": "cube", "asset_id": "x"}, {"asset_id": "Lamp_1", "category": ""}]
        content = {"instances": [{**kinds[place], "mass": 1.0} for place in order], "camera": {}, "metadata": {}}
        files[f"movi/{scene}/metadata.json"] = json.dumps(content).encode()
        files[f"movi/{scene}/events.json"] = b"{}"
        for frame in range(2):
            values = rng(scene, frame, "instances").integers(0, 4, (H, W), dtype=np.uint8)
            wanted = np.array([0, *({0: 2, 1: 3, 2: 1}[place] for place in order)], np.uint8)[values]
            rgba = np.dstack([photo(f"{scene} {frame}"), np.full((H, W), 255, np.uint8)])
            files |= {f"movi/{scene}/rgba_{frame:05d}.png": png(rgba),
                      f"movi/{scene}/segmentation_{frame:05d}.png": palette_png(values),
                      f"movi/{scene}/depth_{frame:05d}.tiff": b""}  # fmt: skip
            name = f"movi_{scene}-{frame:05d}"
            masks[name], groups[name] = wanted, f"movi/{scene}"
    return Fake(files, masks, ("background", "Lamp_1", "chair", "cube"), groups, left_out={"other file": 36})


def hdf5(**arrays):
    """A file as BlenderProc's write_hdf5 makes it: lists of objects are JSON in bytes, the rest is compressed."""
    h5py = pytest.importorskip("h5py")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as content:
        for key, data in arrays.items():
            if isinstance(data, list):
                content.create_dataset(key, data=np.bytes_(json.dumps(data)))
            else:
                content.create_dataset(key, data=data, compression="gzip")
        content.create_dataset("blender_proc_version", data=np.bytes_("2.8.0"))
    return stream.getvalue()


def blenderproc():
    """Categories by a csv; in turn their own map, that of classes, and instances with their attributes."""
    files, masks = {"set/classes.csv": b"id,name\n0,void\n7,leaf\n300,stem\n", "set/notes.csv": b"a,b\n1,2\n"}, {}
    for number in range(12):
        ids = rng(number, "blenderproc").integers(0, 3, (H, W), dtype=np.uint8)
        values = np.array([0, 7, 300], np.uint16)[ids]
        maps = {("category_id_segmaps", "class_segmaps")[number % 2]: values}
        if number % 3 == 2:  # instances: two leaves and a stem
            instances = np.where(ids == 1, rng(number, "instances").choice([1, 3], (H, W)), ids)
            listed = [{"idx": 1, "category_id": 7}, {"idx": 2, "category_id": 300}, {"idx": 3, "category_id": 7}]
            maps = {"instance_segmaps": instances.astype(np.float64), "instance_attribute_maps": listed}
        files[f"set/{number}.hdf5"] = hdf5(colors=photo(f"b{number}"), depth=np.zeros((H, W), np.float32), **maps)
        masks[f"set-{number}"] = ids
    return Fake(files, masks, ("void", "leaf", "stem"), left_out={"other file": 1})


def synth_human():
    files, masks = {}, {}
    for number in range(12):
        name = f"{number:07d}"
        alpha = rng(name, "alpha").choice([0, 1, 127, 128, 200, 255], (H, W)).astype(np.uint8)
        files |= {f"people/rgb_{name}.png": png(photo(f"h{name}")), f"people/alpha_{name}.png": png(alpha),
                  f"people/cam_{name}.txt": b"1 0 0", f"people/depth_{name}.exr": b""}  # fmt: skip
        masks[f"people-{name}"] = (alpha > 127).astype(np.uint8)
    return Fake(files, masks, ("background", "person"), left_out={"other file": 24})


FAKES = {
    "synth_face": synth_face, "celebamask_hq": celebamask_hq, "lapa": lapa, "helen": helen, "voc": voc,
    "camvid": camvid, "labelme": labelme, "labelme_json": labelme_json, "label_studio": label_studio, "cvat": cvat,
    "supervisely": supervisely,
    "coco": coco, "roboflow": roboflow, "cityscapes": cityscapes, "acdc": acdc, "gta5": gta5, "urbansyn": urbansyn,
    "synthia": synthia, "synscapes": synscapes,
    "ade20k": ade20k, "segnet": segnet, "infinigen": infinigen, "solo": solo, "replicator": replicator,
    "easysynth": easysynth, "kubric": kubric, "airsim": airsim, "synth_human": synth_human, "blenderproc": blenderproc,
}  # fmt: skip
PATTERNED = {"carla": carla}
"""Without marks of their own: --images, --masks and --table are said."""
