"""A recipe is a command line, written down: a flat YAML file of settings, which the command line wins over.

settings.py, trainer_settings.py  the manual: every setting with its type, range and default
loading.py      from a command line to a Recipe, by way of
recipe_file.py  a recipe file as text
reading.py      from text to typed values
paths.py        which files the settings name
checks.py       what is wrong with them
hardware.py     what the machine and the launcher decide
arguments.py    the TrainingArguments that are made of them, and those that are refused
resolved.py     the recipe that repeats a run
manual.py       `--help`
"""
