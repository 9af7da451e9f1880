"""What two models share, and what one model is: compare, inspect, and how results look."""
