"""Messages and stubs generated from ``proto/attnpriv/v1``; ``make proto`` writes them anew."""
