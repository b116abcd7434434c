"""`flarekit serve`: a page and an API on one machine; scans in, masks and measurements out.

Needs the packages of the extra `serve`: `pip install ".[serve]"` in a checkout.
"""
