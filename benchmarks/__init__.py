"""Speed, side by side in one run: `python -m benchmarks.<name>` prints a Markdown table."""
