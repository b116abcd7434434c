"""ULS23 on grand-challenge.org: a stack of VOIs in, a stack of lesion masks out."""
