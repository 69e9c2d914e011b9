"""What setup.cfg cannot say: the wheel holds scripts/ as seg_recipe.commands, and recipes/ as seg_recipe.recipes."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["seg_recipe*"]), "seg_recipe.commands", "seg_recipe.recipes"],
    package_dir={"seg_recipe.commands": "scripts", "seg_recipe.recipes": "recipes"},
    package_data={
        "seg_recipe": ["py.typed", "*/templates/*"],
        "seg_recipe.recipes": ["*.yaml", "*.json", "accelerate/*.yaml", "*/config.json"],
    },
)
