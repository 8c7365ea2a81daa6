"""What people see: lines in a terminal, a report, a page for labelling."""
