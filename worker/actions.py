"""What people did about alerts, as the compacted topic tells it, and what holds for an alert now. Pure."""
