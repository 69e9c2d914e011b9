"""Masks worn on faces, which FaceSynthetics paints as background: counted, their background ignored, or left out."""

import numpy as np
import pytest

from seg_recipe.importers.facewear import hides_facewear
from tests.face_files import IDS, contents, make_folder, make_zip, png, run, run_faces
from tests.foreign_layouts import FAKES
from tests.test_importers_formats import found

SIDE = 32
WORN = ("000003", "000011")


def landmarks():
    """70 points: nose and mouth in the middle of the picture, the others at its edge."""
    points = np.zeros((70, 2))
    points[27:36] = points[48:68] = SIDE / 2
    return points


def text(points):
    return "\n".join(f"{x:.3f} {y:.3f}" for x, y in points).encode()


def faces(extra=()):
    files = contents()
    for name in IDS:
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[8:24, 8:24], mask[0, 0] = (0 if name in WORN else 1), 255
        mask[4:8] = 13
        files |= {f"{name}.png": png(np.full((SIDE, SIDE, 3), int(name), np.uint8)), f"{name}_seg.png": png(mask)}
        files[f"{name}_ldmks.txt"] = text(landmarks())
    return files | dict(extra)


@pytest.mark.slow
def test_kept_by_default_and_said(tmp_path, capsys):
    result = run(make_folder(tmp_path / "in", faces()), tmp_path / "out")
    assert result["linked"] == 40
    printed = capsys.readouterr().out
    assert (
        "NOTE: FaceSynthetics paints what is worn over a face, such as a medical mask, as background: 2 of 20 pairs "
        "looked at" in printed
    )
    assert "--facewear ignore or leave_out" in printed


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_folder, make_zip])
def test_their_background_is_ignored(tmp_path, make, capsys):
    result = run(make(tmp_path / "in.zip", faces()), tmp_path / "out", "--facewear", "ignore")
    assert result["problems"] == 0
    pairs = found(tmp_path / "out")
    assert len(pairs) == 20
    for name, (_, mask, _) in pairs.items():
        wanted = np.full((SIDE, SIDE), 255 if name in WORN else 0)
        wanted[8:24, 8:24] = 255 if name in WORN else 1
        wanted[4:8], wanted[0, 0] = 13, 255
        np.testing.assert_array_equal(mask, wanted)
    assert "2 of 20 pairs looked at, which have no labelled background" in capsys.readouterr().out
    assert run(tmp_path / "in.zip", tmp_path / "out", "--facewear", "ignore")["already_there"] == 20
    with pytest.raises(ValueError, match="was imported with other facewear"):
        run(tmp_path / "in.zip", tmp_path / "out")


@pytest.mark.slow
def test_they_are_left_out(tmp_path):
    result = run(make_folder(tmp_path / "in", faces()), tmp_path / "out", "--facewear", "leave_out")
    assert result["left_out"]["pair with facewear, painted as background"] == 2
    assert set(found(tmp_path / "out")) == set(IDS) - set(WORN)


def test_landmarks_that_are_none_tell_nothing(tmp_path):
    broken = {f"{name}_ldmks.txt": data for name, data in zip(IDS, (b"", b"1 2", b"a b\n" * 70, b"1 2 3\n" * 70,
    b"nan nan\n" * 70,
              b"\xff" * 300, b"1e300 1e300\n" * 70, b"-5 -5\n" * 70), strict=False)}  # fmt: skip
    result = run(make_folder(tmp_path / "in", faces(broken)), tmp_path / "out", "--facewear", "leave_out")
    assert (result["written"], result["problems"]) == (19, 0)


def test_more_than_half_of_nose_and_mouth_must_lie_on_background():
    mask = np.ones((SIDE, SIDE), np.int32)
    mask[:, 16:] = 0
    points = landmarks()
    for on, hides in ((14, False), (15, True)):
        points[[*range(27, 36), *range(48, 68)], 0] = [20] * on + [3] * (29 - on)
        assert hides_facewear(mask, points) == hides


def test_where_it_has_no_effect_it_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--facewear ignore has no effect: SOURCE is lapa"):
        run(make_zip(tmp_path / "lapa.zip", FAKES["lapa"]().files), tmp_path / "out", "--facewear", "ignore")
    files = {name: data for name, data in faces().items() if "ldmks" not in name}
    with pytest.raises(
        ValueError, match=r"--facewear ignore tells pairs by their landmarks, and SOURCE has no \*_ldmks\.txt"
    ):
        run_faces(make_zip(tmp_path / "in.zip", files), tmp_path / "out", "--facewear", "ignore")
