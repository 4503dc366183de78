"""Runs a guarded FiftyOne server for each reviewer, and the database that all of them share."""
