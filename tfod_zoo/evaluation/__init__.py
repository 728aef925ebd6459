"""COCO metrics over a detector and a data set."""
