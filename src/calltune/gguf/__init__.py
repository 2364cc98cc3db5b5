"""llama.cpp's file format, read and written."""
