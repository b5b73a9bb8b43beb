"""JupyterLab as `make lab` starts it: it asks nothing of the network."""

c = get_config()  # noqa: F821  (JupyterLab puts this name here)

c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
