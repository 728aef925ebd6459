"""A detector as files that others run, each proved against the model that it was made from."""
