"""Share: its layout, publishing, pointers, the loader and garbage collection."""
