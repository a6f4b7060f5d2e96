"""Scripts that train or measure something once; each is run as `python -m analyses.NAME`."""
