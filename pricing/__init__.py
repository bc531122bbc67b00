"""Menus of token caps and prices, from a market to a certificate; a library that does no I/O."""
