"""Export, hub upload and the demo."""
