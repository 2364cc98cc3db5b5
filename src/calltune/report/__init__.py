"""What people look at: tables in the terminal, and the examples behind them."""
