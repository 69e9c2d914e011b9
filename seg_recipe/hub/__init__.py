"""What goes to the Hub: the model with its card, and a Space that shows it."""
