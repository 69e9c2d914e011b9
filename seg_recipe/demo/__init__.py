"""The demo page.

comparison.py: what it shows; fragments.py and templates/: how it looks; page.py: its events; serving.py: who may reach
it. The extra `demo` is needed by page.py and serving.py only. hub/space.py makes a Space of it.
"""
