"""The dead-letter queue in an operator's hands: what lies there, why, and how it is sent again."""
