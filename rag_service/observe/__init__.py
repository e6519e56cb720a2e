"""What can be seen of the service from outside: log lines, metrics and traces. Everything may import it."""
