"""Agent: ask a model for tool calls, run them, and continue the conversation with the results."""
