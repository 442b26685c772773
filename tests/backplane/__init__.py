"""Backplanes between real processes, over real servers."""
