"""What the notebooks use: exercises, widgets, plots, experiments."""
