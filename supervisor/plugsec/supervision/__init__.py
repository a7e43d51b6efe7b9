"""Watching a run: deadlines, output caps, denials, resource use, the end of the tree and its cause."""
