def weather(city: str, days: int = 1) -> str:
    """Get the weather in a city.

    Args:
        city: Which city.
        days: How many days.
    """
    return f"{city} {days}"
