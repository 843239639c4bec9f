"""What `make` and CI call that is not part of the product."""
