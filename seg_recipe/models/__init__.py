"""Backbone and head with the label space written into the config, the image processor that goes with them, and the
optimizer's groups.
"""

from seg_recipe.models.build import build_model
from seg_recipe.models.groups import backbone_prefix, parameter_groups

__all__ = ["backbone_prefix", "build_model", "parameter_groups"]
