"""From a recipe and a runtime to a verified build on the share."""
