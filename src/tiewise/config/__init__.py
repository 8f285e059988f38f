"""What a run is: fields, checks, presets, and what makes two runs the same."""
