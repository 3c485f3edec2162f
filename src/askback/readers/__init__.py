"""Bytes -> Documents or seed Pairs: one file per family of formats."""
