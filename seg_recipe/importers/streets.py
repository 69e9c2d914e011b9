"""Streets in the 19 classes of Cityscapes, https://www.cityscapes-dataset.com, so that they can be mixed and compared

    cityscapes   leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
                 gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png    or _labelTrainIds.png
    acdc         rgb_anon/fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon.png
                 gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_labelIds.png     or _gt_labelTrainIds.png
    gta5         images/00001.png  labels/00001.png                              palette PNG of Cityscapes' labelIds
    urbansyn     rgb/rgb_0001.png  ss/ss_0001.png                                Cityscapes' trainIds
    synthia      RGB/0000001.png  GT/LABELS/0000001.png                          16 bits, SYNTHIA's ids in red
    synscapes    img/rgb/1.png  img/class/1.png                                  Cityscapes' labelIds

labelIds (0-33) become the 19 classes by the makers' table (cityscapesScripts, helpers/labels.py); the other ids are
not labelled, as in the benchmark. The published split is kept where the folders name it; of the others a hash of the
picture's name makes one. In Cityscapes' own test set nothing is labelled. Pictures and masks of GTA5 that
differ in size are left out. synthia is SYNTHIA-RAND-CITYSCAPES: its void, parking slots, road works and lane markings
are not labelled, as in the field's comparisons (lhoyer/DAFormer, tools/convert_datasets/synthia.py). The video
sequences of SYNTHIA have other ids. Of Synscapes img/rgb is read, which has the size of the masks
(synscapes.on.liu.se/features.html). Cityscapes, ACDC, GTA5, SYNTHIA and Synscapes are for non-commercial use. CARLA
has no layout of its own: see `carla`.
"""

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Integer

from seg_recipe.importers.image_files import look_up, opened, read_ids, read_red
from seg_recipe.importers.published import split_of
from seg_recipe.importers.samples import NOT_LABELLED, SETS, Layout, Painted, Sample, pair_up, safe_id
from seg_recipe.importers.sources import LeftOut, SourceFile

CLASSES = {
    "road": (7, (128, 64, 128)), "sidewalk": (8, (244, 35, 232)), "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)), "fence": (13, (190, 153, 153)), "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)), "traffic sign": (20, (220, 220, 0)), "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)), "sky": (23, (70, 130, 180)), "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)), "car": (26, (0, 0, 142)), "truck": (27, (0, 0, 70)), "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)), "motorcycle": (32, (0, 0, 230)), "bicycle": (33, (119, 11, 32)),
}  # fmt: skip
"""Class -> its labelId and its colour; the trainId is the place."""

_LABEL_IDS = dict.fromkeys(range(35), NOT_LABELLED) | {
    label: place for place, (label, _) in enumerate(CLASSES.values())
}
_LABEL_IDS[255] = NOT_LABELLED  # license plate is -1, and 34 in GTA5
_SYNTHIA = dict.fromkeys(range(23), NOT_LABELLED) | {
    3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12, 8: 13, 18: 14, 19: 15,
    20: 16, 12: 17, 11: 18,
}  # fmt: skip
_TRAIN_IDS = {**{place: place for place in range(len(CLASSES))}, 255: NOT_LABELLED}
_TOP = r"(?:.*/)?"


class Street(NamedTuple):
    """Patterns of images and masks of a street data set, whose groups make the pair; the kind of its masks."""

    picture: str
    masks: tuple[tuple[str, dict[int, int]], ...]
    MARKS: tuple[str, ...]
    CONFIRM: Callable[[dict[str, SourceFile]], bool] | None = None
    ids: Callable[[SourceFile], Integer[np.ndarray, "height width"]] = read_ids

    def read(self, files: dict[str, SourceFile], left_out: LeftOut) -> Layout:
        """Read the layout above, in the 19 classes. Of several kinds of masks it reads the first that exists."""
        pattern, codes = next(
            (kind for kind in self.masks if any(map(re.compile(kind[0]).fullmatch, files))), self.masks[0]
        )
        images: dict[tuple[str, ...], SourceFile] = {}
        masks: dict[tuple[str, ...], SourceFile] = {}
        for name, file in files.items():
            if match := re.fullmatch(pattern, name):
                masks[match.groups()] = file
            elif match := re.fullmatch(self.picture, name):
                images[match.groups()] = file
            else:
                left_out.add("other file", name)
        samples = []
        for key, image, mask in pair_up(images, masks, left_out):
            split = next(filter(None, map(split_of, "/".join(key[:-1]).split("/"))), "")
            paint = functools.partial(_paint, mask, codes, self.ids)
            samples.append(Sample(safe_id(key[-1]), image, Painted((mask,), paint), safe_id(key[-1]), split))
        published = {sample.published for sample in samples}
        palette = tuple(colour for _, colour in CLASSES.values())
        return Layout(tuple(CLASSES), samples, palette, SETS if published and "" not in published else ())


def _has_the_palette(files: dict[str, SourceFile]) -> bool:
    """Whether the first mask is a palette PNG with Cityscapes' colours of road and car at 7 and 26."""
    file = next(file for name, file in sorted(files.items()) if re.fullmatch(GTA5.MARKS[1], name))
    try:
        with opened(file) as picture:
            palette = picture.getpalette() or [] if picture.mode == "P" else []
    except ValueError:
        return False
    return all(
        tuple(palette[3 * label : 3 * label + 3]) == colour for label, colour in (CLASSES["road"], CLASSES["car"])
    )


CITYSCAPES = Street(
    _TOP + r"leftImg8bit/(\w+/\w+)/(.+)_leftImg8bit\.png",
    (
        (_TOP + r"gtFine/(\w+/\w+)/(.+)_gtFine_labelIds\.png", _LABEL_IDS),
        (_TOP + r"gtFine/(\w+/\w+)/(.+)_gtFine_labelTrainIds\.png", _TRAIN_IDS),
    ),
    (_TOP + r"leftImg8bit/.+_leftImg8bit\.png", _TOP + r"gtFine/.+_gtFine_label(?:Train)?Ids\.png"),
)
ACDC = Street(
    _TOP + r"rgb_anon/(\w+/\w+/\w+)/(.+)_rgb_anon\.png",
    (
        (_TOP + r"gt/(\w+/\w+/\w+)/(.+)_gt_labelIds\.png", _LABEL_IDS),
        (_TOP + r"gt/(\w+/\w+/\w+)/(.+)_gt_labelTrainIds\.png", _TRAIN_IDS),
    ),
    (_TOP + r"rgb_anon/.+_rgb_anon\.png", _TOP + r"gt/.+_gt_label(?:Train)?Ids\.png"),
)
GTA5 = Street(
    _TOP + r"images/(\d{5})\.png",
    ((_TOP + r"labels/(\d{5})\.png", _LABEL_IDS),),
    (_TOP + r"images/\d{5}\.png", _TOP + r"labels/\d{5}\.png"),
    _has_the_palette,
)
URBANSYN = Street(
    _TOP + r"rgb/rgb_(\d{4})\.png",
    ((_TOP + r"ss/ss_(\d{4})\.png", _TRAIN_IDS),),
    (_TOP + r"rgb/rgb_\d{4}\.png", _TOP + r"ss/ss_\d{4}\.png"),
)


SYNTHIA = Street(
    _TOP + r"RGB/(\d{7})\.png",
    ((_TOP + r"GT/LABELS/(\d{7})\.png", _SYNTHIA),),
    (_TOP + r"RGB/\d{7}\.png", _TOP + r"GT/LABELS/\d{7}\.png"),
    ids=read_red,
)
SYNSCAPES = Street(
    _TOP + r"img/rgb/(\d+)\.png",
    ((_TOP + r"img/class/(\d+)\.png", _LABEL_IDS),),
    (_TOP + r"img/rgb/\d+\.png", _TOP + r"img/class/\d+\.png"),
)


def _paint(
    mask: SourceFile, codes: dict[int, int], ids: Callable[[SourceFile], Integer[np.ndarray, "height width"]]
) -> Int32[np.ndarray, "height width"]:
    return look_up(ids(mask), codes, show="id {}".format)
