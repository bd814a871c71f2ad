"""Paper trading: what a simulated account makes of an agent's decisions, and why it differs."""
