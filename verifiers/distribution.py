"""Distances between sets of forecasts and sets of true futures."""
