"""Backbone and head with the label space written into the config, the image processor that goes with them, and the
optimizer's groups.
"""

from seg_recipe.models.build import build_model
from seg_recipe.models.groups import parameter_groups
from seg_recipe.models.layers import Frozen, freeze

__all__ = ["Frozen", "build_model", "freeze", "parameter_groups"]
