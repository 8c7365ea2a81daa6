"""What a report shows, one function a figure."""
