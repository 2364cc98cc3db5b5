"""The HTTP server: OpenAI's Chat Completions API for a model and its adapters."""
