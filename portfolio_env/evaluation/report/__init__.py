"""The report of an evaluation: its inputs, its sections, their plots and the HTML page."""
