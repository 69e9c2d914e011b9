"""Tiny copies of the layout in which FaceSynthetics is released, as folders and zips, and the tree that an import must
make of them.
"""

import hashlib
import importlib.util
import io
import re
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from seg_recipe.splits import in_validation

SCRIPT = Path(__file__).parents[1] / "scripts" / "import_dataset.py"
_spec = importlib.util.spec_from_file_location("import_dataset", SCRIPT)
import_dataset = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(import_dataset)

IDS = [f"{number:06d}" for number in range(20)]
CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def pair(sample_id, size=8):
    rng = np.random.default_rng(list(sample_id.encode()))
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[: size // 2] = 13  # hair above, background below
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    return {f"{sample_id}.png": png(image), f"{sample_id}_seg.png": png(mask)}


def contents(ids=IDS):
    """A tiny copy of the released layout: pairs, landmarks and a licence."""
    files = {name: data for sample_id in ids for name, data in pair(sample_id).items()}
    return files | {f"{sample_id}_ldmks.txt": b"1.0 2.0\n" * 70 for sample_id in ids} | {"LICENSE.txt": b"terms"}


def make_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_zip(path, files, method=zipfile.ZIP_DEFLATED):
    """`files`: name or ZipInfo -> bytes, as a dict or a list of pairs."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, data, compress_type=method)
    return path


def patch(path, signature, name, offset, value):
    """Overwrites one field of a member's local or central header (offsets as in the zip specification, 4.3.7 and
    4.3.12).
    """
    data, field = bytearray(path.read_bytes()), 30 if signature == LOCAL else 46
    places = [found.start() for found in re.finditer(re.escape(signature), data)]
    (header,) = (place for place in places if data[place + field : place + field + len(name)] == name.encode())
    data[header + offset : header + offset + len(value)] = value
    path.write_bytes(data)


def tree(folder):
    """Every file below the folder, the record of the import apart."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "import.json"
    }


def wanted_tree(files, val_fraction=0.1):
    ids = sorted(name.removesuffix("_seg.png") for name in files if name.endswith("_seg.png"))
    split = {sample_id: "val" if in_validation(sample_id, val_fraction) else "train" for sample_id in ids}
    if "val" not in split.values() and len(ids) > 1 and val_fraction:  # one at least, whose hash comes first
        split[min(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())] = "val"
    images = {f"{split[i]}/images/{i}.png": files[f"{i}.png"] for i in ids}
    return images | {f"{split[i]}/annotations/{i}_seg.png": files[f"{i}_seg.png"] for i in ids}


def run_faces(*arguments):
    """An import of FaceSynthetics that is told so: a copy without landmarks has not all of its marks."""
    return run(*arguments, "--format", "face_synthetics")


def run(*arguments):
    return import_dataset.main([str(argument) for argument in arguments])
