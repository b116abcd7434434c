"""The report to look at: one HTML file, drawn as SVG, that needs no network."""
