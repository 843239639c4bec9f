"""Tools for `make` and CI that are not part of the product."""
