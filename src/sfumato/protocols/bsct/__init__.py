"""The Bond Smoothness Characterization Test."""
