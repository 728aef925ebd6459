"""Faster R-CNN: proposals from one network, classified by another (arXiv:1506.01497)."""
