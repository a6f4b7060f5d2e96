"""Codes on disk: the files, their writer, their reader."""
