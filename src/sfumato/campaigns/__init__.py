"""Campaigns that make reference data: structures in, labeled structures and scans out."""
