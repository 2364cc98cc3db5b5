"""The engines: `serve(rows, setting, channel)` of a module trains until the channel is closed."""
