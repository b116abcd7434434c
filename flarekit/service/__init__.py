"""`flarekit serve`: a page and an API on one machine; scans in, masks and measurements out.

Needs `pip install flarekit[serve]`.
"""
