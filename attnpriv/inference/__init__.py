"""Messages generated from ``proto/attnpriv/inference``; ``make proto`` writes them anew."""
