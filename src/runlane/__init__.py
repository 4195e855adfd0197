"""Watch a reinforcement-learning run while it trains, and keep every step it makes."""

__version__ = "0.1.0"
