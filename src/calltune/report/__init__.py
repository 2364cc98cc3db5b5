"""What people read: tables and progress in the terminal, and the HTML report."""
