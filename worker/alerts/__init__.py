"""What people see of alerts at the command line, and what they do about them."""
