"""Builder: turns a recipe and a runtime into a verified build on the share."""
