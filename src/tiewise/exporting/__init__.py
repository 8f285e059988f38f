"""An adapter as a plain classifier, and models sent to the hub."""
