"""The contracts: the events that travel on the topics. Imports nothing of ours."""
