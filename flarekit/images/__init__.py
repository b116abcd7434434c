"""Images of predictors for organisers: built, verified, saved as files, run on the platform."""
