"""Configurations and networks. Every file here can be copied beside a checkpoint."""
