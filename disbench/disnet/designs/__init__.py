"""Designs of the literature on DISNet's encoder, decoder, data and clicks, one file each, named after its paper."""
