"""Necks: from a backbone's feature maps to the one map that the heads read."""
