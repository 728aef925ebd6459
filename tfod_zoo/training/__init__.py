"""Training on Model Garden's task and trainer."""
