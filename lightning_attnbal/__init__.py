"""Attention Balancer."""
