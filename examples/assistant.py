"""Tools of a small assistant for a home, as a person would write them for a model to call."""

from typing import Annotated, Literal

from pydantic import Field

Day = Literal["today", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Room = Literal["living_room", "kitchen", "bedroom", "bathroom", "office", "hallway"]


def set_alarm(time: Annotated[str, Field(pattern=r"^\d{2}:\d{2}$")], day: Day = "today") -> str:
    """Set an alarm that rings once.

    Args:
        time: When to ring, on the 24-hour clock, e.g. 06:30.
        day: The day on which to ring.
    """
    return f"Alarm set for {time}, {day}."


def start_timer(minutes: Annotated[int, Field(ge=1, le=180)], label: str = "") -> str:
    """Start a kitchen timer.

    Args:
        minutes: How long the timer runs, in minutes.
        label: What the timer is for, e.g. eggs.
    """
    return f"Timer {label or 'without a name'} runs for {minutes} minutes."


def send_message(contact: str, text: str) -> str:
    """Send a text message to a contact.

    Args:
        contact: The first name of the person who gets the message, e.g. Maria.
        text: The message, in the words of the user.
    """
    return f"Sent to {contact}: {text}"


def add_event(title: str, date: str, time: str | None = None) -> str:
    """Add an event to the calendar.

    Args:
        title: What the event is called, e.g. Dentist.
        date: The date as YYYY-MM-DD.
        time: When it begins, on the 24-hour clock, e.g. 14:00; left out for a whole day.
    """
    return f"{title} is on {date}{f' at {time}' if time else ''}."


def set_light(
    room: Room,
    brightness: Annotated[int, Field(ge=0, le=100)] = 100,
    color: Literal["white", "warm", "red", "green", "blue"] = "white",
) -> str:
    """Turn the light of a room on, off or to a brightness.

    Args:
        room: The room whose light is meant.
        brightness: The brightness in percent; 0 turns the light off.
        color: The color of the light.
    """
    return f"The light in {room} is at {brightness} percent, {color}."


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> str:
    """Get the weather forecast for a city.

    Args:
        city: The name of the city, e.g. Rome.
        unit: The unit of the temperature.
    """
    return f"{city}: sunny, 21 degrees {unit}."


def check_battery() -> str:
    """Tell how full the battery of this device is."""
    return "The battery is at 64 percent."
