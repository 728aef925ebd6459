"""Cloud TPUs: what fits on them, found out without one, and the commands that train on them."""
