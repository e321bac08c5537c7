"""Learned precoding: networks, the scenes they are trained on, their training, and their weights with cards."""
