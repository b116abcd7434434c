"""Inputs that images are tried with, made from seeds; `samples/x.py` serves the convention `x`."""
