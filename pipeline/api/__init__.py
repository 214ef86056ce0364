"""The HTTP interface: what a merchant's rows look like to whoever asks, one merchant at a time.

Every answer that is no success has one shape, ``{"error": {"code", "message"}}``. An answer is exact or it is an
error: a sink that cannot answer in full is a 503, never a smaller number.
"""
