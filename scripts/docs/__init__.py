"""The docs: what is generated from code, and what makes a site of them."""
