"""Estimates the market from customers' recorded behaviour."""
