"""What the commands that take NAME|DIR and --weights call the two."""

from pathlib import Path


def model_title(model: str, weights: str) -> str:
    """`runs/cells`, whose own weights go without saying, or `NAME, weights random`."""
    return model if weights == "zoo" and Path(model).is_dir() else f"{model}, weights {weights}"
