"""Pure tensor mathematics: eigenvectors, singular values, polar factors, spectra, cover bases."""
