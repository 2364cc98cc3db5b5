"""An OpenAI-compatible endpoint: the wire, the turn of a model, the engine and the application."""
