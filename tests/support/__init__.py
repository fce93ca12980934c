"""What tests of rewrites share: models from text, three-sided checks, numbers against the untouched model."""
