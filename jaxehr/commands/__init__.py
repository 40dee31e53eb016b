"""One module per command of the shell, each with `run(words) -> exit code`."""
