"""Small helpers that several families of rewrites share."""
