"""What `make lab` starts JupyterLab with: the checkout as its root, and nothing from outside it."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent

c = get_config()  # noqa: F821 (traitlets gives it to the files it reads)

c.ServerApp.root_dir = str(HERE.parents[1])
c.LabApp.default_url = "/lab/tree/notebooks"
# Jupyter refuses root, often the only user of a container, unless told; it never asks others.
c.ServerApp.allow_root = os.geteuid() == 0

# No news, no look for updates, no catalogue of extensions; overrides.json, here, keeps the page
# from asking whether news are wanted.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
c.LabApp.app_settings_dir = str(HERE)
