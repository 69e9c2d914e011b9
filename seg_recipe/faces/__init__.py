"""Synthetic faces: parameters are drawn from a seed (`sample`), a face is drawn from parameters (`render`); both are
pure.

To find a part, read `anatomy` (where the lips are), `head` (the relief), `skin` (what a point on it looks like),
`attached` (ears, hanging hair, glasses), `body`, `backdrop` (`spaces`, `things`, `materials`), `foreground`, `light`,
`camera`; `rendering` puts them together, `folder` writes data sets (`make_faces`).
"""

from .folder import Drawn, make_faces
from .parameters import FaceParameters, mirror, sample
from .rendering import render

__all__ = ["Drawn", "FaceParameters", "make_faces", "mirror", "render", "sample"]
