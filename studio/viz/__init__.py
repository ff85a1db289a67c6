"""Pure functions from traces and slices to Plotly figures (plain dicts, ready for JSON)."""
