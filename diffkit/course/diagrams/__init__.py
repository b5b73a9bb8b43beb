"""Pictures of mechanisms for the notebooks, drawn as SVG by one hand."""
