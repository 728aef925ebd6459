"""The tfod-zoo command line: one small file a command."""
