"""CenterNet (Objects as Points, arXiv:1904.07850)."""
