"""Rewards over HTTP: the service on Ray Serve and its client."""
