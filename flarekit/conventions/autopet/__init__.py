"""autoPET (I to V) on grand-challenge.org: a CT and a PET in, one mask of the lesions out."""
