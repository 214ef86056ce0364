"""The words of the product as values and pure functions: no clock, no network, no environment."""
