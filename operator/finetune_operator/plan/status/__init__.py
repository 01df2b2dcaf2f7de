"""From what was decided to the status, conditions and events that show it."""
