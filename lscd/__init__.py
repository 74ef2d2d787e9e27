"""The command line of the Flash-LLM lab."""
